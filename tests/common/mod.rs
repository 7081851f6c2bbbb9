//! What the integration tests share: a plain reference of every layer, networks with random weights, and blobs written
//! by hand.

// Each test is a crate of its own and uses a part of this.
#![allow(dead_code)]

#[cfg(not(any(target_family = "wasm", miri)))]
pub(crate) mod guarded;
pub(crate) mod int8;
pub(crate) mod network;
pub(crate) mod raw;
pub(crate) mod reference;

use reference::Bounded;
use thumbnet::layer::{AvgPool2d, Layer, MaxPool2d};
use thumbnet::{AlignedBuf, Backend, Model};

#[cfg(any(
    all(target_arch = "aarch64", not(target_feature = "neon")),
    all(target_arch = "wasm32", not(target_feature = "simd128"))
))]
compile_error!("`wide` would be plain arithmetic: compile the tests with -Ctarget-feature=+neon or +simd128");

/// The backends that this target and this processor must have. A test that quietly leaves one out proves nothing about
/// it, so the list is written out here, with a detection that is not the library's; unless `THUMBNET_EXPECTED_BACKENDS` names
/// them, since some tools hide instructions from both.
fn expected_backends() -> Vec<String> {
    if let Ok(names) = std::env::var("THUMBNET_EXPECTED_BACKENDS") {
        return names.split(' ').map(String::from).collect();
    }
    detected_backends().into_iter().map(String::from).collect()
}

fn detected_backends() -> Vec<&'static str> {
    let mut expected = vec!["scalar"];
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    {
        expected.push("wide");
        use std::is_x86_feature_detected as has;
        let avx2 = has!("avx2") && has!("fma") && has!("f16c");
        if avx2 {
            expected.push("avx2");
        }
        if avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
            expected.push("avx512");
        }
    }
    #[cfg(any(target_arch = "aarch64", target_arch = "wasm32"))]
    expected.push("wide");
    expected
}

/// Every backend; fails if one is missing.
pub(crate) fn backends() -> Vec<Backend> {
    let found: Vec<_> = Backend::available().collect();
    let names: Vec<_> = found.iter().map(|backend| backend.name()).collect();
    assert_eq!(names, expected_backends());
    assert_eq!(Some(&Backend::best()), found.last());
    found
}

/// Fails unless every value lies within its reference's error bound; NaN and infinities must be exactly that.
#[track_caller]
pub(crate) fn assert_within(found: &[f32], expected: &[Bounded], what: impl Fn() -> String) {
    assert_eq!(found.len(), expected.len(), "{}", what());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(expected.admits(*found), "{}: output {index} is {found:e}, but should be {expected:?}", what());
    }
}

/// Runs a model with exactly as much scratch memory as it asks for, filled with bytes that make NaN.
pub(crate) fn run<'i>(model: &Model<'_>, input: impl Into<thumbnet::Input<'i>>) -> Vec<f32> {
    let mut scratch = AlignedBuf::zeroed(model.scratch_bytes());
    scratch.fill(0xff);
    model.run(input, &mut scratch).expect("the lengths fit").to_vec()
}

/// The bit patterns, for comparisons in which NaN equals NaN and 0 does not equal -0.
pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Runs what loads, on every backend. The results of the backends may differ by rounding only, but a mutated model can
/// amplify that without end, so only their number is checked.
pub(crate) fn run_everywhere(blob: &[u8]) {
    for backend in backends() {
        let model = Model::load(blob).expect("it did load").with_backend(backend);
        assert_eq!(run(&model, &vec![0.5; model.input_len()][..]).len(), model.output_len());
        assert_eq!(run(&model, &vec![128; model.input_len()][..]).len(), model.output_len());
    }
}

/// The most [`work`] of a model that a test may make of any bytes, so that it runs in milliseconds.
pub(crate) const MOST_WORK: u64 = 3_000_000;

/// How many steps the inner loops take, about.
pub(crate) fn work(model: &Model<'_>) -> u64 {
    let pool = |layer: &Layer| match layer {
        Layer::MaxPool2d(MaxPool2d { kernel, .. }) | Layer::AvgPool2d(AvgPool2d { kernel, .. }) => {
            u64::from(kernel[0]) * u64::from(kernel[1])
        }
        _ => 1,
    };
    model.layers().map(|info| info.macs + u64::from(info.output.elements().unwrap_or(0)) * pool(&info.layer)).sum()
}
