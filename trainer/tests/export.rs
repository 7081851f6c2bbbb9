//! Exported networks give the outputs that the trainer's own forward pass gives.

use thumbnet::layer::{Layer, Shape};
use thumbnet::{AlignedBuf, Backend, Model};
use thumbnet_trainer::data::{PIXEL_SCALE, mnist};
use thumbnet_trainer::export::export;
use thumbnet_trainer::network::Network;
use thumbnet_trainer::random::RandomState;
use thumbnet_trainer::recipe::Recipe;

const LABELS: [&str; 3] = ["red", "green", "blue"];

/// Exports a random network of `layers` (TOML, before a dense layer of three outputs) and compares the outputs for a
/// few images of 9 x 8 pixels. Gives the layers of the exported model.
fn compare(layers: &str, loss: &str) -> Vec<Layer> {
    let text = format!(
        "description = \"test\"\nseed = 1\nepochs = 1\nbatch = 1\nlearning_rate = 1.0\nloss = \"{loss}\"\n{layers}
         [[layers]]\ntype = \"dense\"\noutputs = 3\ninit = \"glorot-uniform\"\n"
    );
    let recipe = Recipe::parse("test", &text).unwrap();
    let mut rng = RandomState::new(11);
    let mut network = Network::new(&recipe, Shape::new(9, 8, 1), 3, &mut rng).unwrap();
    for parameters in network.parameters_mut() {
        parameters.bias.iter_mut().for_each(|bias| *bias = rng.random_sample() as f32 - 0.5);
    }
    let blob = export(&network, recipe.loss, &LABELS).unwrap();
    let model = Model::load(&blob).unwrap();
    assert_eq!((0..3).map(|class| model.label(class)).collect::<Vec<_>>(), LABELS);
    let mut scratch = AlignedBuf::zeroed(model.scratch_bytes());
    for _ in 0..4 {
        let bytes: Vec<u8> = (0..72).map(|_| (256.0 * rng.random_sample()) as u8).collect();
        let image: Vec<f32> = bytes.iter().map(|&byte| f32::from(byte) * PIXEL_SCALE).collect();
        let expected = network.infer(&image).to_vec();
        let found = model.logits(&bytes[..], &mut scratch).unwrap();
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-5, "{found} {expected}: {layers}");
        }
    }
    model.layers().map(|info| info.layer).collect()
}

fn conv(more: &str) -> String {
    format!("[[layers]]\ntype = \"conv2d\"\nfilters = 5\ninit = \"he-normal\"\n{more}\n")
}

#[test]
fn dense_networks() {
    for activation in ["none", "relu", "tanh", "sigmoid"] {
        let hidden = format!(
            "[[layers]]\ntype = \"dense\"\noutputs = 20\nactivation = \"{activation}\"\ninit = \"glorot-uniform\"
             [[layers]]\ntype = \"dropout\"\nrate = 0.3\n"
        );
        let layers = compare(&hidden, "cross-entropy");
        assert!(matches!(layers[..], [Layer::Dense(_), Layer::Dense(_), Layer::Softmax]));
        assert!(matches!(compare(&hidden, "squared-error")[..], [Layer::Dense(_), Layer::Dense(_)]));
    }
}

#[test]
fn convolutions() {
    for more in [
        "kernel = [3, 3]\nactivation = \"tanh\"",
        "kernel = [3, 3]\ncrop = { bottom = 1, right = 1 }",
        "kernel = [2, 4]\npadding = \"same\"\nstride = [2, 3]\nactivation = \"relu\"",
        "kernel = [3, 2]\nbias = false\ncrop = { top = 2, left = 1 }\npadding = \"same\"",
    ] {
        compare(&conv(more), "cross-entropy");
    }
}

#[test]
fn pooling_is_joined_to_its_convolution_where_the_windows_do_not_overlap() {
    let pool = |more: &str| format!("[[layers]]\ntype = \"max-pool2d\"\n{more}\n");
    let first = conv("kernel = [2, 2]\nactivation = \"tanh\"\npadding = \"same\"");
    let joined = compare(&format!("{first}{}", pool("kernel = [2, 2]")), "cross-entropy");
    assert!(matches!(joined[..], [Layer::Conv2d(conv), Layer::Dense(_), Layer::Softmax] if conv.pool == [2, 2]));
    let apart = compare(&format!("{first}{}", pool("kernel = [3, 3]\nstride = [2, 2]")), "cross-entropy");
    assert!(matches!(apart[..], [Layer::Conv2d(_), Layer::MaxPool2d(_), Layer::Dense(_), Layer::Softmax]));
    let second = conv("kernel = [3, 3]\nactivation = \"relu\"");
    compare(&format!("{first}{}{second}{}", pool("kernel = [2, 2]"), pool("kernel = [2, 1]")), "cross-entropy");
}

/// What the desktop measured is what any processor answers: the shipped model gives the same class to each test image on
/// every backend.
#[test]
fn every_backend_gives_the_same_predictions() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/digits.tnet");
    let blob = AlignedBuf::from_bytes(&std::fs::read(file).expect("the shipped model"));
    let test = mnist::test(&mnist::default_folder()).expect("the test images");
    let predictions = |backend| {
        let model = Model::load(&blob).expect("a valid model").with_backend(backend);
        let mut scratch = AlignedBuf::zeroed(model.scratch_bytes());
        let class = |index| model.classify(test.example(index), &mut scratch).expect("lengths that fit").class;
        (0..test.len()).map(class).collect::<Vec<_>>()
    };
    let mut all = Backend::available().map(predictions);
    let first = all.next().expect("there is always the scalar backend");
    assert!(Backend::available().count() > 1, "nothing to compare with");
    assert!(all.all(|others| others == first));
}
