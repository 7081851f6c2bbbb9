//! Batches over several threads give the outputs of one thread, to the last bit.

mod common;

use common::{json, repository_data, shipped_model, succeeds};
use std::num::NonZeroUsize;
use std::path::Path;
use thumbnet::{AlignedBuf, Backend, Model, RunError};
use thumbnet_trainer::batches::{self, AT_A_TIME};
use thumbnet_trainer::convert::convert;
use thumbnet_trainer::data::{Values, mnist};

fn threads(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).expect("at least one")
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Compares the outputs for the first images of the test set with those of the core alone.
fn compare(model: &Model<'_>, images: &[u8], count: usize, name: &str) {
    let bytes = &images[..count * model.input_len()];
    let values: Vec<f32> = bytes.iter().map(|&byte| f32::from(byte) / 255.0).collect();
    let mut scratch = AlignedBuf::zeroed(AT_A_TIME * model.scratch_bytes());
    let mut expected = [(); 3].map(|()| vec![0.0; count * model.output_len()]);
    model.logits_batch(bytes, &mut scratch, &mut expected[0]).unwrap();
    model.run_batch(bytes, &mut scratch, &mut expected[1]).unwrap();
    model.run_batch(&values[..], &mut scratch, &mut expected[2]).unwrap();
    for number in [1, 2, 3, 5, 64] {
        // NaN, so that an output that is left out is noticed.
        let mut found = [(); 3].map(|()| vec![f32::NAN; count * model.output_len()]);
        batches::logits_batch(model, bytes, &mut found[0], threads(number)).unwrap();
        batches::run_batch(model, bytes, &mut found[1], threads(number)).unwrap();
        batches::run_batch(model, &values[..], &mut found[2], threads(number)).unwrap();
        for (found, expected) in found.iter().zip(&expected) {
            let same = bits(found) == bits(expected);
            assert!(same, "{name} on {}: {count} images, {number} threads", model.backend().name());
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let test = mnist::test(&mnist::default_folder()).expect("the test images");
    let Values::Bytes(pixels) = &test.values else { panic!("MNIST is bytes") };
    for (name, counts) in [("digits.tnet", &[0, 1, 63, 64, 65, 127, 193, 401][..]), ("s1-fixed.tnet", &[0, 1, 65, 131])]
    {
        let file = AlignedBuf::from_bytes(&std::fs::read(shipped_model(name)).unwrap());
        let half = convert(&Model::load(&file).unwrap(), thumbnet::layer::WeightType::F16).unwrap();
        for backend in Backend::available() {
            for blob in [&file, &half] {
                let model = Model::load(blob).unwrap().with_backend(backend);
                counts.iter().for_each(|&count| compare(&model, pixels, count, name));
            }
        }
    }
}

#[test]
fn lengths_that_do_not_fit_are_reported_as_the_core_reports_them() {
    let file = AlignedBuf::from_bytes(&std::fs::read(shipped_model("digits.tnet")).unwrap());
    let model = Model::load(&file).unwrap();
    let images = vec![0u8; 200 * 784];
    let run = |inputs: usize, outputs: usize| {
        batches::run_batch(&model, &images[..inputs], &mut vec![0.0; outputs], threads(2))
    };
    let (found, expected) = (200 * 784 - 1, 784);
    assert_eq!(run(found, 2000), Err(RunError::WrongInputLength { found, expected }));
    for found in [0, 1990, 1999, 2010] {
        assert_eq!(run(200 * 784, found), Err(RunError::WrongOutputLength { found, expected: 2000 }));
    }
    assert_eq!(run(200 * 784, 2000), Ok(()));
    assert_eq!(run(0, 0), Ok(()));
}

#[test]
fn eval_does_not_depend_on_the_number_of_threads() {
    let (model, data) = (shipped_model("digits.tnet"), repository_data());
    let eval = |more: &[&str]| {
        let args = [&["eval", &model, "--data", &data, "--json"], more].concat();
        json(&succeeds(Path::new("."), &args))
    };
    let all = eval(&[]);
    assert_eq!(all["images"], 10_000);
    assert_eq!(all, eval(&["--threads", "1"]));
    assert_eq!(all, eval(&["--threads", "3"]));
    common::fails(Path::new("."), &["eval", &model, "--threads", "0"], &["--threads"]);
}
