//! Models that are part of the program.

mod common;

use common::{bits, run};
use thumbnet::blob::{self, embedded_prefix};
use thumbnet::{AlignedBuf, EmbeddedModel, LoadError, Model, ops};

thumbnet::include_model! {
    /// Four dense layers, six inputs, four outputs.
    pub(crate) mod embedded_dense = "golden/v1-dense.tnet";
}

thumbnet::include_model! { mod embedded_conv = "golden/v1-conv.tnet"; }

// The sizes are known while compiling.
const _: () = {
    assert!(embedded_dense::INPUT_LEN == 6);
    assert!(embedded_dense::OUTPUT_LEN == 4);
    assert!(embedded_dense::SCRATCH_BYTES == 4 * (17 + 18));
    assert!(embedded_dense::OPS == ops::DENSE | ops::TANH | ops::SIGMOID | ops::WEIGHTS_F32);
    assert!(embedded_conv::INPUT_LEN == 9 * 8 * 2);
    assert!(embedded_conv::OUTPUT_LEN == 3);
    assert!(
        embedded_conv::OPS == ops::CONV2D | ops::MAX_POOL2D | ops::DENSE | ops::TANH | ops::SOFTMAX | ops::WEIGHTS_F32
    );
    assert!(size_of::<embedded_dense::Scratch>() == (4usize * (17 + 18)).next_multiple_of(64));
};

#[test]
fn the_file_is_there_and_aligned() {
    assert_eq!(embedded_dense::BLOB, include_bytes!("golden/v1-dense.tnet"));
    assert_eq!(embedded_conv::BLOB, include_bytes!("golden/v1-conv.tnet"));
    assert_eq!(embedded_dense::BLOB.as_ptr().addr() % thumbnet::ALIGNMENT, 0);
    assert_eq!(embedded_conv::BLOB.as_ptr().addr() % thumbnet::ALIGNMENT, 0);
}

#[test]
fn an_embedded_model_gives_what_a_loaded_one_gives() {
    let embedded = embedded_dense::load().expect("a valid file");
    let loaded = Model::load(embedded_dense::BLOB).expect("a valid file");
    let mut scratch = embedded_dense::Scratch::zeroed();
    let values = [0.5, -0.25, 0.0, 1.0, -1.0, 0.125];
    let outputs: [f32; 4] = embedded.run(&values, &mut scratch);
    assert_eq!(bits(&outputs), bits(&run(&loaded, &values)));
    // There is no softmax to leave out.
    assert_eq!(bits(&embedded.logits(&values, &mut scratch)), bits(&outputs));
    let bytes = [0u8, 255, 128, 3, 77, 200];
    let outputs = embedded.run(&bytes, &mut scratch);
    assert_eq!(bits(&outputs), bits(&run(&loaded, &bytes)));
    let mut buffer = AlignedBuf::zeroed(loaded.scratch_bytes());
    let best = embedded.classify(&bytes, &mut scratch);
    assert_eq!(Ok(best), loaded.classify(&bytes, &mut buffer));
    assert!(outputs.iter().all(|output| *output <= outputs[best.class]));
    assert_eq!(best.label, ["north", "öst", "south", "西"][best.class]);
    // What a loaded model has, an embedded one has too.
    assert_eq!(embedded.layers().count(), 4);
    assert_eq!(embedded.input_len(), embedded_dense::INPUT_LEN);
    assert_eq!(embedded.scratch_bytes(), embedded_dense::SCRATCH_BYTES);
}

#[test]
fn logits_are_the_values_before_the_softmax() {
    let embedded = embedded_conv::load().expect("a valid file");
    let mut scratch = embedded_conv::Scratch::zeroed();
    let image = [100u8; embedded_conv::INPUT_LEN];
    let outputs = embedded.run(&image, &mut scratch);
    let logits = embedded.logits(&image, &mut scratch);
    let sum: f32 = logits.iter().map(|x| x.exp()).sum();
    for (output, logit) in outputs.iter().zip(logits) {
        assert!((output - logit.exp() / sum).abs() < 1e-6, "{outputs:?} {logits:?}");
    }
    assert!((outputs.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    let best = embedded.classify(&image, &mut scratch);
    assert_eq!((best.label, best.probability), ("", outputs[best.class]));
}

#[test]
fn operations_that_are_left_out_are_named() {
    type DenseOnly = EmbeddedModel<{ ops::DENSE | ops::WEIGHTS_F32 }, 6, 4, { embedded_dense::SCRATCH_BYTES }>;
    assert_eq!(
        DenseOnly::load(embedded_dense::BLOB).err(),
        Some(LoadError::UnsupportedOps { missing: ops::TANH | ops::SIGMOID })
    );
}

/// `include_model!` calls this in a constant, where a panic is an error of the compiler.
#[test]
fn files_that_are_no_model_do_not_compile() {
    let message = |file: &[u8]| {
        let file = file.to_vec();
        let panic = std::panic::catch_unwind(move || embedded_prefix(&file)).expect_err("the file is bad");
        panic.downcast_ref::<&str>().expect("a message").to_string()
    };
    let file = embedded_dense::BLOB;
    let cut = "the model file is truncated, or something is appended to it";
    assert_eq!(message(&file[..file.len() - 1]), cut);
    assert_eq!(message(&[file, &[0]].concat()), cut);
    assert_eq!(message(&file[..blob::PREFIX_BYTES]), cut);
    let no_model = "the file is not a thumbnet model";
    assert_eq!(message(&[]), no_model);
    assert_eq!(message(&file[..blob::PREFIX_BYTES - 1]), no_model);
    assert_eq!(message(&file[1..]), no_model);
    let mut later = file.to_vec();
    later[4] = 2;
    assert_eq!(message(&later), "the model file has a format version that this library does not read");
    assert_eq!(Ok(embedded_prefix(file)), blob::Prefix::read(file));
}
