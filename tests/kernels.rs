//! Every kernel on every backend against the plain reference, around all edges of the tiles.

mod common;
#[cfg(not(any(target_family = "wasm", miri)))] // whose memory has no pages to protect
#[path = "kernels/guard_pages.rs"]
mod guard_pages;

use common::network::{
    Network, avg_pool, conv, dense, depthwise, input, leaky, many_zeros, max_pool, signed, signed_vec, with_background,
};
use common::reference::{self, Bounded, from_bytes, from_values};
use common::{assert_within, backends, bits, run};
use fastrand::Rng;
use thumbnet::kernels::pack::{pack, tensor_bytes};
use thumbnet::kernels::{self, MatmulError, Panels, matmul, matmul_packing_bytes};
use thumbnet::layer::{Activation, Conv2d, DepthwiseConv2d, Layer, Padding, WeightType};
use thumbnet::{AlignedBuf, Backend, Model};

const NO_FLOOR: f32 = f32::NEG_INFINITY;

/// Packed weights that own their memory.
struct Packed {
    tensor: AlignedBuf,
    inputs: usize,
    outputs: usize,
}

impl Packed {
    fn new(weights: &[f32], bias: &[f32], outputs: usize) -> Self {
        let inputs = weights.len() / outputs;
        let bytes = tensor_bytes::<f32>(inputs as u32, outputs as u32).expect("small") as usize;
        let mut tensor = AlignedBuf::zeroed(bytes);
        tensor.fill(0xa5);
        pack::<f32>(weights, bias, outputs, &mut tensor).expect("the lengths fit");
        Self { tensor, inputs, outputs }
    }

    fn panels(&self) -> Panels<'_> {
        Panels::new(&self.tensor, self.inputs, self.outputs).expect("packed for this shape")
    }
}

/// Checks rows of inputs, of which each lies at every misalignment that an f32 can have, on one backend.
fn check_dense(backend: Backend, packed: &Packed, x: &[f32], expected: &[Bounded], shift: usize, what: &str) {
    let panels = packed.panels();
    let shifted = [&vec![f32::NAN; shift][..], x].concat();
    // Canaries on both sides.
    let mut out = vec![7.5; shift + expected.len() + 20];
    let (before, rest) = out.split_at_mut(shift);
    let (target, behind) = rest.split_at_mut(expected.len());
    kernels::dense(backend, &shifted[shift..], panels, NO_FLOOR, target);
    assert_within(target, expected, || format!("{} on {}, shifted by {shift}", what, backend.name()));
    assert!(before.iter().chain(&*behind).all(|canary| *canary == 7.5), "{what} writes beside its output");

    // ReLU is the same with a floor, bit by bit.
    let plain = target.to_vec();
    kernels::dense(backend, x, panels, 0.0, target);
    let bounded: Vec<_> = plain.iter().map(|x| if 0.0 > *x { 0.0 } else { *x }).collect();
    assert_eq!(bits(target), bits(&bounded), "{what}: ReLU");
}

fn dense_rows(x: &[f32], weights: &[f32], bias: &[f32], outputs: usize) -> Vec<Bounded> {
    let inputs = weights.len() / outputs;
    x.chunks_exact(inputs).flat_map(|row| reference::dense(&from_values(row), weights, bias, outputs)).collect()
}

fn check_dense_shape(rng: &mut Rng, rows: usize, inputs: usize, outputs: usize) {
    let weights = signed_vec(rng, inputs * outputs);
    let bias = if rng.bool() { signed_vec(rng, outputs) } else { Vec::new() };
    let x = signed_vec(rng, rows * inputs);
    let expected = dense_rows(&x, &weights, &bias, outputs);
    let packed = Packed::new(&weights, &bias, outputs);
    for backend in backends() {
        let what = format!("dense [{rows}, {inputs}] x [{inputs}, {outputs}]");
        check_dense(backend, &packed, &x, &expected, rng.usize(0..16), &what);
    }
}

/// The sizes up to `largest`; for Miri, which takes a thousand times as long, a few of them.
fn sizes(largest: usize) -> impl Iterator<Item = usize> {
    (1..=largest).step_by(if cfg!(miri) { 11 } else { 1 })
}

#[test]
fn dense_at_all_tile_edges() {
    let mut rng = Rng::with_seed(1);
    for rows in sizes(9) {
        for outputs in sizes(35) {
            for inputs in sizes(40) {
                check_dense_shape(&mut rng, rows, inputs, outputs);
            }
        }
    }
}

#[test]
fn dense_of_large_sizes() {
    let mut rng = Rng::with_seed(2);
    for (rows, inputs, outputs) in [(1, 784, 128), (33, 784, 10), (5, 4097, 31), (2, 1, 1000), (1, 20_000, 17)] {
        check_dense_shape(&mut rng, rows, inputs, outputs);
    }
}

/// Panels that are narrower than a vector have a loop of their own, also in batches if there are many inputs.
#[test]
fn dense_of_few_outputs_and_many_inputs() {
    let mut rng = Rng::with_seed(9);
    for outputs in (1..=16).chain([26, 42]) {
        for inputs in [511, 512, 513, 519, 520, 527, 1000] {
            for rows in [1, 2, 3, 4, 5, 8, 97] {
                check_dense_shape(&mut rng, rows, inputs, outputs);
            }
        }
    }
}

/// Inputs of zero are skipped where there are many of them in all rows of a tile.
#[test]
fn dense_of_many_zeros() {
    let mut rng = Rng::with_seed(8);
    let (inputs, outputs) = ([63, 64, 65, 100, 128, 300, 784, 1023, 1024, 1025, 1500], [10, 32, 33, 64, 70, 130]);
    let (inputs, outputs) = if cfg!(miri) { (&inputs[2..3], &outputs[1..2]) } else { (&inputs[..], &outputs[..]) };
    for &inputs in inputs {
        for &outputs in outputs {
            for share in if cfg!(miri) { &[0.3][..] } else { &[0.0, 0.2, 0.3, 0.7, 1.0] } {
                let rows = if cfg!(miri) { 5 } else { rng.usize(1..=14) };
                let (weights, bias) = (signed_vec(&mut rng, inputs * outputs), signed_vec(&mut rng, outputs));
                let x = many_zeros(&mut rng, rows, inputs, *share);
                let expected = dense_rows(&x, &weights, &bias, outputs);
                let packed = Packed::new(&weights, &bias, outputs);
                for backend in backends() {
                    let what = format!("dense [{rows}, {inputs}] x [{inputs}, {outputs}], {share} not zero");
                    check_dense(backend, &packed, &x, &expected, rng.usize(0..16), &what);
                }
            }
        }
    }
}

#[test]
fn dense_of_nan_infinities_and_denormals() {
    let mut rng = Rng::with_seed(3);
    let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-40, -1e-45, f32::MIN_POSITIVE, 1e18, 1.0];
    for case in 0..3000 {
        let (rows, inputs, outputs) = (rng.usize(1..=6), rng.usize(1..=20), rng.usize(1..=35));
        let mut draw = |len: usize, percent: u8| -> Vec<f32> {
            let rare = |rng: &mut Rng| if rng.u8(0..100) < percent { special[rng.usize(0..10)] } else { signed(rng) };
            (0..len).map(|_| rare(&mut rng)).collect()
        };
        // From the odd special value to nothing else.
        let percent = [2, 10, 100][case % 3];
        let (x, weights, bias) = (draw(rows * inputs, percent), draw(inputs * outputs, percent / 2), draw(outputs, 2));
        let expected = dense_rows(&x, &weights, &bias, outputs);
        for backend in backends() {
            check_dense(backend, &Packed::new(&weights, &bias, outputs), &x, &expected, case % 4, "special values");
        }
    }
}

#[test]
fn dense_of_denormals_only() {
    let mut rng = Rng::with_seed(4);
    let weights = signed_vec(&mut rng, 30 * 19);
    let x: Vec<_> = (0..30).map(|_| f32::from_bits(rng.u32(0..1 << 23))).collect();
    let expected = dense_rows(&x, &weights, &[], 19);
    assert!(expected.iter().any(|sum| sum.value != 0.0 && sum.value.abs() > 4.0 * sum.error), "the bound is too loose");
    for backend in backends() {
        check_dense(backend, &Packed::new(&weights, &[], 19), &x, &expected, 1, "denormals");
    }
}

#[test]
fn dense_of_bytes() {
    let mut rng = Rng::with_seed(5);
    // Around the length of the parts in which bytes are converted, too.
    let lengths = (1..=40).chain([127, 128, 129, 255, 256, 257, 784, 4000]);
    for inputs in lengths {
        for outputs in [1, 3, 4, 5, 8, 15, 16, 17, 31, 32, 33, 35] {
            let spec = input(1, 1, inputs as u16);
            let bytes: Vec<_> = (0..inputs).map(|_| rng.u8(..)).collect();
            let (weights, bias) = (signed_vec(&mut rng, inputs * outputs), signed_vec(&mut rng, outputs));
            let expected = reference::dense(&from_bytes(&spec, &bytes), &weights, &bias, outputs);
            let scaled: Vec<_> = bytes.iter().map(|b| f32::from(*b) * spec.scale + spec.offset).collect();
            let of_values = dense_rows(&scaled, &weights, &bias, outputs);
            let packed = Packed::new(&weights, &bias, outputs);
            let panels = packed.panels();
            for backend in backends() {
                let what = || format!("{inputs} bytes to {outputs} on {}", backend.name());
                let mut out = vec![7.5; outputs];
                kernels::dense_bytes(backend, &bytes, (spec.scale, spec.offset), panels, NO_FLOOR, &mut out);
                assert_within(&out, &expected, what);
                assert_within(&out, &of_values, what);
                let floored: Vec<_> = out.iter().map(|x| if 0.0 > *x { 0.0 } else { *x }).collect();
                kernels::dense_bytes(backend, &bytes, (spec.scale, spec.offset), panels, 0.0, &mut out);
                assert_eq!(bits(&out), bits(&floored), "{}: ReLU", what());
            }
        }
    }
}

/// "Does nothing if the lengths of `x` and `out` are not those of the same number of rows."
#[test]
fn dense_leaves_the_output_alone_if_lengths_do_not_fit() {
    let packed = Packed::new(&[1.0; 3 * 5], &[1.0; 5], 5);
    let panels = packed.panels();
    for backend in backends() {
        for inputs in 0..=20 {
            for outputs in 0..=30 {
                if inputs % 3 == 0 && outputs % 5 == 0 && inputs / 3 == outputs / 5 {
                    continue;
                }
                let mut out = vec![7.5; outputs];
                kernels::dense(backend, &vec![1.0; inputs], panels, NO_FLOOR, &mut out);
                let what = format!("{inputs} inputs and {outputs} outputs of a [3, 5] matrix on {}", backend.name());
                assert!(out.iter().all(|x| *x == 7.5), "{what}: {out:?}");
                kernels::dense_bytes(backend, &vec![1; inputs], (1.0, 0.0), panels, NO_FLOOR, &mut out);
                assert!(out.iter().all(|x| *x == 7.5), "bytes, {what}: {out:?}");
            }
        }
    }
}

/// Checks a product on every backend, with slices at any misalignment and memory to pack into that held something else.
fn check_matmul(rng: &mut Rng, (m, k, n): (usize, usize, usize)) {
    let (shift, other) = (rng.usize(0..16), rng.usize(0..16));
    let (a, b) = (signed_vec(rng, shift + m * k), signed_vec(rng, other + k * n));
    let (a, b) = (&a[shift..], &b[other..]);
    let expected = if m * k * n == 0 { vec![Bounded::exact(0.0); m * n] } else { dense_rows(a, b, &[], n) };
    let needed = matmul_packing_bytes(k, n).expect("small");
    let mut packing = AlignedBuf::zeroed(needed + rng.usize(0..100));
    for backend in backends() {
        packing.fill(0xff);
        // Canaries on both sides.
        let mut out = vec![7.5; other + m * n + 20];
        let (before, rest) = out.split_at_mut(other);
        let (target, behind) = rest.split_at_mut(m * n);
        matmul(backend, a, b, (m, k, n), &mut packing, target).expect("the lengths fit");
        assert_within(target, &expected, || format!("[{m}, {k}] · [{k}, {n}] on {}", backend.name()));
        assert!(before.iter().chain(&*behind).all(|canary| *canary == 7.5), "it writes beside its output");
        assert!(packing[needed..].iter().all(|byte| *byte == 0xff), "it needs more than {needed} bytes");
    }
}

/// Up to two of the largest tiles, and one more.
#[test]
fn matmul_at_all_tile_edges() {
    let mut rng = Rng::with_seed(15);
    for m in 0..=25 {
        for n in 0..=97 {
            let k = rng.usize(0..=9);
            check_matmul(&mut rng, (m, k, n));
        }
    }
    for k in 0..=40 {
        check_matmul(&mut rng, (3, k, 33));
    }
    for sizes in [(1, 784, 128), (130, 300, 7), (100, 5, 70), (5, 4097, 31), (200, 1, 1)] {
        check_matmul(&mut rng, sizes);
    }
}

#[test]
fn matmul_refuses_lengths_that_do_not_fit() {
    let refused = |[a, b, out]: [usize; 3], sizes, packing: usize, expected: MatmulError, message: &str| {
        let mut target = vec![7.5; out];
        let mut packing = AlignedBuf::zeroed(packing);
        let found = matmul(Backend::best(), &vec![1.0; a], &vec![1.0; b], sizes, &mut packing, &mut target);
        assert_eq!(found, Err(expected));
        assert_eq!(expected.to_string(), message);
        assert!(target.iter().all(|x| *x == 7.5), "{message}: it writes all the same");
        let _: &dyn std::error::Error = &expected;
    };
    let wrong = |matrix, found, rows, columns| MatmulError::WrongLength { matrix, found, rows, columns };
    let (sizes, needed) = ((2, 3, 5), matmul_packing_bytes(3, 5).expect("small"));
    for a in [0, 5, 7] {
        let message = format!("`a` has {a} values, but should be a matrix of 2 x 3");
        refused([a, 15, 10], sizes, needed, wrong("a", a, 2, 3), &message);
    }
    for b in [0, 14, 16] {
        let message = format!("`b` has {b} values, but should be a matrix of 3 x 5");
        refused([6, b, 10], sizes, needed, wrong("b", b, 3, 5), &message);
    }
    for out in [0, 9, 11] {
        let message = format!("`out` has {out} values, but should be a matrix of 2 x 5");
        refused([6, 15, out], sizes, needed, wrong("out", out, 2, 5), &message);
    }
    for found in [0, 1, needed - 1] {
        let message = format!("{found} bytes to pack into, but the matrix needs {needed}");
        refused([6, 15, 10], sizes, found, MatmulError::PackingTooSmall { found, needed }, &message);
    }
    // Sizes whose product overflows, also to the length that there is.
    let half = 1 << (usize::BITS - 1);
    let message = format!("`a` has 0 values, but should be a matrix of {half} x 2");
    refused([0, 0, 0], (half, 2, 0), 0, wrong("a", 0, half, 2), &message);
    let message = format!("`b` has 0 values, but should be a matrix of 2 x {half}");
    refused([0, 0, 0], (0, 2, half), 0, wrong("b", 0, 2, half), &message);

    assert_eq!(matmul_packing_bytes(1 << 15, 1 << 15), None);
    assert_eq!(matmul_packing_bytes(usize::MAX, 1), None);
    assert_eq!([matmul_packing_bytes(0, usize::MAX), matmul_packing_bytes(usize::MAX, 0)], [Some(0); 2]);
    let (k, n) = (1 << 15, 1 << 15);
    assert_eq!(MatmulError::TooLarge { k, n }.to_string(), "a matrix of 32768 x 32768 takes 4 GiB or more when packed");
}

#[test]
fn panels_have_the_length_of_their_shape() {
    for (inputs, outputs) in [(1, 2), (3, 5), (40, 16), (7, 33)] {
        let mut tensor = Packed::new(&vec![1.0; inputs * outputs], &[], outputs).tensor;
        let found = |tensor: &[u8], inputs, outputs| Panels::<f32>::new(tensor, inputs, outputs).is_some();
        assert!(found(&tensor, inputs, outputs));
        assert!(!found(&tensor[4..], inputs, outputs));
        assert!(!found(&AlignedBuf::zeroed(tensor.len() + 1), inputs, outputs));
        assert!(!found(&AlignedBuf::zeroed(tensor.len() + 2)[2..], inputs, outputs), "misaligned");
        assert!(!found(&tensor, inputs, 0) && !found(&tensor, 0, outputs));
        assert!(!found(&tensor, inputs, usize::MAX) && !found(&tensor, usize::MAX, outputs));
        let ones = vec![1.0; inputs * outputs];
        assert!(pack::<f32>(&ones, &[0.0; 100], outputs, &mut tensor).is_none(), "100 biases");
        assert!(pack::<f32>(&ones[1..], &[], outputs, &mut tensor).is_none(), "not whole rows");
        assert!(pack::<f32>(&ones, &[], 0, &mut tensor).is_none());
    }
    assert_eq!(tensor_bytes::<f32>(u32::MAX, 1), None);
    assert_eq!(tensor_bytes::<f32>(1 << 20, 1 << 12), None);
}

/// What is packed can be read again, one by one.
#[test]
fn packed_weights_can_be_read_one_by_one() {
    let mut rng = Rng::with_seed(9);
    for (inputs, outputs) in [(1, 1), (3, 5), (7, 16), (5, 37)] {
        let (weights, bias) = (signed_vec(&mut rng, inputs * outputs), signed_vec(&mut rng, outputs));
        let packed = Packed::new(&weights, &bias, outputs);
        let panels = packed.panels();
        assert_eq!((panels.inputs(), panels.outputs(), panels.bias()), (inputs, outputs, &bias[..]));
        for (index, weight) in weights.iter().enumerate() {
            assert_eq!(panels.weight(index / outputs, index % outputs), Some(*weight));
        }
        assert_eq!((panels.weight(inputs, 0), panels.weight(0, outputs)), (None, None));
    }
}

/// Runs a network on values and on bytes, on every backend, against the reference.
fn check_network(network: &Network, values: &[f32], bytes: &[u8]) {
    let blob = network.encode();
    let of_values = network.reference(from_values(values));
    let of_bytes = network.reference(from_bytes(&network.input, bytes));
    let scaled: Vec<_> = bytes.iter().map(|b| f32::from(*b) * network.input.scale + network.input.offset).collect();
    let of_scaled = network.reference(from_values(&scaled));
    for backend in backends() {
        let model = Model::load(&blob).expect("a valid blob").with_backend(backend);
        let what = |input| move || format!("{input} through {:?} on {}", network.layers, backend.name());
        assert_within(&run(&model, values), &of_values, what("values"));
        let found = run(&model, bytes);
        assert_within(&found, &of_bytes, what("bytes"));
        assert_within(&found, &of_scaled, what("bytes as scaled values"));
    }
}

fn check_conv(rng: &mut Rng, shape: [u16; 3], conv: Conv2d) {
    check_layer(rng, shape, Layer::Conv2d(conv));
}

fn check_depthwise(rng: &mut Rng, shape: [u16; 3], conv: DepthwiseConv2d) {
    check_layer(rng, shape, Layer::DepthwiseConv2d(conv));
}

fn check_layer(rng: &mut Rng, [height, width, channels]: [u16; 3], layer: Layer) {
    let spec = input(height, width, channels);
    let dims = [height, width, channels].map(usize::from);
    if reference::output_dims(&layer, dims).is_none() {
        return;
    }
    let network = Network::random(spec, &[layer], rng.u64(..));
    let values = signed_vec(rng, network.input_len());
    let bytes: Vec<_> = values.iter().map(|_| rng.u8(..)).collect();
    check_network(&network, &values, &bytes);
}

#[test]
fn conv2d_at_all_tile_edges() {
    let mut rng = Rng::with_seed(6);
    for filters in 1..=35 {
        for channels in [1, 2, 3, 4, 5, 8, 17] {
            for size in 1..=4 {
                let mut conv = conv(filters, size, Activation::None);
                conv.kernel = [size, rng.u8(1..=4)];
                conv.pool = [rng.u8(1..=3), rng.u8(1..=3)];
                conv.stride = [rng.u8(1..=2), rng.u8(1..=3)];
                check_conv(&mut rng, [7, 8, channels], conv);
            }
        }
    }
}

/// The windows that networks for images have, for which a backend may have loops of its own.
#[test]
fn conv2d_of_the_commonest_windows() {
    let mut rng = Rng::with_seed(14);
    for (size, channels) in [(3, 1), (5, 1), (3, 3), (5, 6), (3, 16), (1, 8)] {
        for filters in [1, 6, 8, 16, 17, 32, 33] {
            for pool in [[1, 1], [2, 2], [2, 1], [3, 3]] {
                // (No padding, a ring, and as much as keeps the size: of a window of three that is a ring too.)
                let sides: &[i8] = if size == 5 { &[0, 1, 2] } else { &[0, 1] };
                for &side in sides {
                    let mut conv = conv(filters, size, Activation::Relu);
                    conv.pool = pool;
                    conv.padding = Padding { top: side, bottom: side, left: side, right: side };
                    check_conv(&mut rng, [9, 13, channels], conv);
                }
            }
        }
    }
}

/// Whether this is an emulated processor, which is slow, as far as the checks tell.
fn is_emulated() -> bool {
    std::env::var_os("PROPTEST_CASES").is_some()
}

/// Outputs that see nothing but zeros are the same everywhere, and not computed.
#[test]
fn conv2d_of_images_with_background() {
    let mut rng = Rng::with_seed(21);
    let activations =
        [Activation::None, Activation::Relu, Activation::Tanh, Activation::Sigmoid, Activation::Relu6, leaky(0.2)];
    let sides = [15, 16, 17, 28, 31, 32, 33, 48, 63, 64, 65];
    for (height, width) in sides.iter().flat_map(|height| sides.map(|width| (*height, width))) {
        // (Each step with a third of the sizes where all of them would take minutes.)
        let skipped = |step: u8| is_emulated() && (height + width) % 3 != u16::from(step) % 3;
        for step in [1, 2, 3].into_iter().filter(|step| !skipped(*step)) {
            let mut conv = conv(rng.u16(1..=35), 3, activations[rng.usize(0..activations.len())]);
            conv.kernel = if rng.bool() { [3, 3] } else { [rng.u8(1..=5), rng.u8(1..=16)] };
            (conv.pool, conv.stride) = if rng.bool() { ([step; 2], [1; 2]) } else { ([rng.u8(1..=2), 1], [1, step]) };
            if rng.u8(0..4) == 0 {
                [conv.padding.top, conv.padding.left] = [rng.i8(-2..=1), rng.i8(-2..=1)];
            }
            if reference::output_dims(&Layer::Conv2d(conv), [height.into(), width.into(), 1]).is_none() {
                continue;
            }
            let network = Network::random(input(height, width, 1), &[Layer::Conv2d(conv)], rng.u64(..));
            let values = with_background(&mut rng, height.into(), width.into());
            let bytes: Vec<u8> = values.iter().map(|value| (value.abs() * 100.0) as u8).collect();
            check_network(&network, &values, &bytes);
        }
    }
}

/// Padding and cropping on each side, more of it than there is input, and more than a window.
#[test]
fn conv2d_with_padding_and_cropping() {
    let mut rng = Rng::with_seed(7);
    let sides = [-6, -1, 0, 1, 3, 9];
    for (top, bottom) in sides.iter().flat_map(|a| sides.map(|b| (*a, b))) {
        for (left, right) in sides.iter().flat_map(|a| sides.map(|b| (*a, b))) {
            let mut conv = conv(rng.u16(1..=6), 3, Activation::Relu);
            conv.padding = Padding { top, bottom, left, right };
            conv.kernel = [rng.u8(1..=3), rng.u8(1..=3)];
            conv.pool = [rng.u8(1..=2), rng.u8(1..=2)];
            conv.stride = [rng.u8(1..=3), rng.u8(1..=3)];
            check_conv(&mut rng, [5, 4, 2], conv);
        }
    }
    let mut extreme = conv(3, 1, Activation::None);
    for (top, bottom) in [(127, 127), (-128, 127), (127, -128), (-4, 0), (0, -4)] {
        extreme.padding = Padding { top, bottom, left: bottom, right: top };
        check_conv(&mut rng, [5, 5, 1], extreme);
    }
}

#[test]
fn conv2d_with_activations_and_large_windows() {
    let mut rng = Rng::with_seed(8);
    for activation in [Activation::None, Activation::Relu, Activation::Tanh, Activation::Sigmoid] {
        let mut pooled = conv(20, 5, activation);
        pooled.pool = [2, 2];
        check_conv(&mut rng, [28, 28, 1], pooled);
        let mut whole = conv(7, 1, activation);
        whole.kernel = [30, 1];
        check_conv(&mut rng, [30, 5, 3], whole);
        whole.kernel = [3, 60];
        check_conv(&mut rng, [4, 61, 2], whole);
        whole.kernel = [255, 255];
        whole.padding = Padding { top: 126, bottom: 127, left: 127, right: 127 };
        check_conv(&mut rng, [2, 2, 1], whole);
    }
}

#[test]
fn depthwise_conv2d_at_all_tile_edges() {
    let mut rng = Rng::with_seed(16);
    for channels in sizes(35) {
        // Up to two of the widest tiles, and one more.
        for width in sizes(19) {
            let size = rng.u8(1..=4);
            let mut conv = depthwise(size, Activation::None);
            conv.kernel = [size, rng.u8(1..=4)];
            conv.stride = [rng.u8(1..=2), rng.u8(1..=3)];
            conv.weights = if rng.bool() { WeightType::F16 } else { WeightType::F32 };
            check_depthwise(&mut rng, [6, width as u16, channels as u16], conv);
        }
    }
}

/// The windows that networks for images have, for which a backend may have loops of its own.
#[test]
fn depthwise_conv2d_of_the_commonest_windows() {
    let mut rng = Rng::with_seed(17);
    for size in [1, 3, 5] {
        for channels in [1, 3, 8, 16, 17, 32, 40, 64] {
            for stride in 1..=2 {
                for side in [0, 1, (size / 2) as i8] {
                    for weights in [WeightType::F32, WeightType::F16] {
                        let padding = Padding { top: side, bottom: side, left: side, right: side };
                        let stride = [stride; 2];
                        let conv = DepthwiseConv2d { stride, padding, weights, ..depthwise(size, Activation::Relu) };
                        check_depthwise(&mut rng, [9, 21, channels], conv);
                    }
                }
            }
        }
    }
}

/// Padding and cropping on each side, more of it than there is input, and more than a window; all activations.
#[test]
fn depthwise_conv2d_with_padding_and_cropping() {
    let mut rng = Rng::with_seed(18);
    let activations = [Activation::None, Activation::Relu, Activation::Tanh, Activation::Sigmoid];
    let sides = [-6, -1, 0, 1, 3, 9];
    for (top, bottom) in sides.iter().flat_map(|a| sides.map(|b| (*a, b))) {
        for (left, right) in sides.iter().flat_map(|a| sides.map(|b| (*a, b))) {
            let mut conv = depthwise(3, activations[rng.usize(0..4)]);
            conv.padding = Padding { top, bottom, left, right };
            conv.kernel = [rng.u8(1..=3), rng.u8(1..=3)];
            conv.stride = [rng.u8(1..=3), rng.u8(1..=3)];
            let channels = rng.u16(1..=20);
            check_depthwise(&mut rng, [5, 4, channels], conv);
        }
    }
    let mut extreme = depthwise(1, Activation::None);
    for (top, bottom) in [(127, 127), (-128, 127), (127, -128), (-4, 0), (0, -4)] {
        extreme.padding = Padding { top, bottom, left: bottom, right: top };
        check_depthwise(&mut rng, [5, 5, 3], extreme);
    }
    let mut large = depthwise(255, Activation::None);
    large.padding = Padding { top: 126, bottom: 127, left: 127, right: 127 };
    check_depthwise(&mut rng, [2, 2, 5], large);
}

#[test]
fn pooling_of_all_shapes() {
    let mut rng = Rng::with_seed(9);
    for channels in 1..=19 {
        for kernel in 1..=4 {
            for stride in 1..=5 {
                for pool in [max_pool, avg_pool] {
                    let layer = pool([kernel, rng.u8(1..=4)], [stride, rng.u8(1..=5)]);
                    let network = Network::random(input(7, 6, channels), &[layer], 0);
                    let values = signed_vec(&mut rng, network.input_len());
                    let bytes: Vec<_> = values.iter().map(|_| rng.u8(..)).collect();
                    check_network(&network, &values, &bytes);
                }
            }
        }
    }
}

/// Pooling passes NaN on, as a layer of its own and behind a convolution; padding adds nothing to a sum, even if the
/// weight that it would meet is infinite; and a special value stays in its channel.
#[test]
fn convolution_and_pooling_of_special_values() {
    let mut rng = Rng::with_seed(10);
    let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 1e-41];
    for case in 0..600 {
        let activation = [Activation::Relu, Activation::Relu6, leaky(0.1)][case % 3];
        let mut conv = conv(rng.u16(1..=18), 2, activation);
        conv.pool = [rng.u8(1..=3), rng.u8(1..=3)];
        conv.padding = Padding { top: 1, bottom: 2, left: 0, right: 1 };
        let mut depthwise = depthwise(2, activation);
        depthwise.padding = conv.padding;
        let layer = match case / 3 % 4 {
            0 => Layer::Conv2d(conv),
            1 => max_pool([2, 3], [1, 2]),
            2 => avg_pool([2, 3], [1, 2]),
            _ => Layer::DepthwiseConv2d(depthwise),
        };
        let mut network = Network::random(input(5, 5, 3), &[layer], rng.u64(..));
        for tensor in &mut network.tensors {
            let at = rng.usize(0..tensor.weights.len());
            tensor.weights[at] = special[rng.usize(1..5)];
        }
        let mut values = signed_vec(&mut rng, network.input_len());
        for _ in 0..=rng.usize(0..4) {
            let at = rng.usize(0..values.len());
            values[at] = special[rng.usize(0..5)];
        }
        let bytes: Vec<_> = values.iter().map(|_| rng.u8(..)).collect();
        check_network(&network, &values, &bytes);
    }
}

#[test]
fn bounded_and_leaky_values_of_every_length() {
    let mut rng = Rng::with_seed(14);
    let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 0.0, 6.0, -1e-41, 6.000_000_5];
    for len in 0..=70 {
        let value = |rng: &mut Rng| if rng.u8(..) < 40 { special[rng.usize(0..8)] } else { 20.0 * signed(rng) };
        let values: Vec<_> = (0..len).map(|_| value(&mut rng)).collect();
        let slope = 0.3;
        let bounded: Vec<_> = values.iter().map(|x| if *x > 6.0 { 6.0 } else { *x }).collect();
        let leaky: Vec<_> = values.iter().map(|x| if *x < 0.0 { *x * slope } else { *x }).collect();
        for backend in backends() {
            let mut out = values.clone();
            kernels::relu6(backend, &mut out);
            assert_same(&out, &bounded, backend.name());
            out.clone_from(&values);
            kernels::leaky_relu(backend, &mut out, slope);
            assert_same(&out, &leaky, backend.name());
        }
    }
}

/// Fails unless all values are equal, NaN to NaN.
#[track_caller]
fn assert_same(found: &[f32], expected: &[f32], what: &str) {
    let same = |(a, b): (&f32, &f32)| a == b || (a.is_nan() && b.is_nan());
    assert!(
        found.len() == expected.len() && found.iter().zip(expected).all(same),
        "{what}: {found:?}, not {expected:?}"
    );
}

#[test]
fn softmax_of_special_values() {
    let inf = f32::INFINITY;
    let all_nan: [&[f32]; 5] = [&[f32::NAN], &[1.0, f32::NAN, 2.0], &[inf, 1.0], &[-inf, -inf], &[inf, -inf, f32::NAN]];
    for backend in backends() {
        for values in all_nan {
            let mut out = values.to_vec();
            kernels::softmax(backend, &mut out);
            assert!(out.iter().all(|x| x.is_nan()), "{values:?} -> {out:?} on {}", backend.name());
        }
        kernels::softmax(backend, &mut []);
        for values in [&[-inf, 3.0, 3.0][..], &[f32::MAX, f32::MAX, 0.0], &[-1e30, -1e30, -2e30], &[1e-40, 0.0, -200.0]]
        {
            let mut out = values.to_vec();
            kernels::softmax(backend, &mut out);
            let expected = match values {
                [a, b, _] if a == b => [0.5, 0.5, 0.0],
                [a, ..] if *a == -inf => [0.0, 0.5, 0.5],
                _ => [0.5, 0.5, 0.0],
            };
            assert_eq!(out, expected, "{values:?} on {}", backend.name());
        }
    }
}

#[test]
fn softmax_of_every_length() {
    let mut rng = Rng::with_seed(11);
    for len in (1..=40).chain([1000, 65_535]) {
        for scale in [0.1, 10.0, 200.0] {
            let values: Vec<_> = signed_vec(&mut rng, len).iter().map(|x| x * scale).collect();
            let expected = reference::softmax(&from_values(&values));
            for backend in backends() {
                let mut out = values.clone();
                kernels::softmax(backend, &mut out);
                assert_within(&out, &expected, || format!("softmax of {len} on {}", backend.name()));
            }
        }
    }
}

/// A dense layer behind a convolution reads its input in memory order.
#[test]
fn dense_after_conv2d_reads_rows_columns_channels() {
    let mut rng = Rng::with_seed(12);
    let layers =
        [Layer::Conv2d(conv(3, 2, Activation::Tanh)), dense(4, Activation::Sigmoid), dense(3, Activation::None)];
    let network = Network::random(input(4, 5, 2), &layers, 13);
    let values = signed_vec(&mut rng, network.input_len());
    check_network(&network, &values, &vec![200; values.len()]);
}

#[test]
fn every_f16_weight_is_converted_exactly() {
    let halves: Vec<_> = (0..=u16::MAX).map(half::f16::from_bits).collect();
    let weights: Vec<_> = halves.iter().map(|half| half.to_f32()).collect();
    for backend in backends() {
        for weights in weights.chunks(16) {
            let mut tensor = AlignedBuf::zeroed(tensor_bytes::<half::f16>(1, 16).expect("small") as usize);
            pack::<half::f16>(weights, &[], 16, &mut tensor).expect("the lengths fit");
            let panels = Panels::<half::f16>::new(&tensor, 1, 16).expect("packed just now");
            let mut found = [0.0; 16];
            kernels::dense(backend, &[1.0], panels, NO_FLOOR, &mut found);
            for (found, weight) in found.iter().zip(weights) {
                // A sum that begins with 0 has no negative zero.
                let same = *found == *weight || (found.is_nan() && weight.is_nan());
                assert!(same, "{}: {weight:e} was read as {found:e}", backend.name());
            }
        }
    }
}
