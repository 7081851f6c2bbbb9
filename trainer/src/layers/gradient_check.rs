//! Every layer's gradients against central differences of the loss, in whole networks.

use super::{Parameters, Pass};
use crate::loss::{Loss, LossQuirks};
use crate::network::Network;
use crate::random::RandomState;
use crate::recipe::Recipe;
use thumbnet::layer::Shape;

const CLASSES: usize = 3;
const ROWS: usize = 5;

/// A network made of `more` keys of a recipe, `layers` (TOML) and a dense layer to the classes, on `height` x `width` images.
fn network(more: &str, layers: &str, height: u16, width: u16) -> (Network, Vec<f32>, Vec<u16>) {
    let text = format!(
        "description = \"test\"\nseed = 1\nepochs = 1\nbatch = 1\nlearning_rate = 1.0\nloss = \"cross-entropy\"\n{more}\n{layers}
         [[layers]]\ntype = \"dense\"\noutputs = {CLASSES}\ninit = \"glorot-uniform\"\n"
    );
    let recipe = Recipe::parse("test", &text).expect("a valid recipe");
    let mut rng = RandomState::new(3);
    let mut network = Network::new(&recipe, Shape::new(height, width, 1), CLASSES, &mut rng).expect("shapes that fit");
    for parameters in network.parameters_mut() {
        // Biases start at zero, where a mistake could hide.
        parameters.bias.iter_mut().for_each(|bias| *bias = rng.random_sample() as f32 - 0.5);
    }
    let count = ROWS * usize::from(height) * usize::from(width);
    let inputs = (0..count).map(|_| if rng.randint2() == 1 { rng.random_sample() as f32 } else { 0.0 }).collect();
    (network, inputs, (0..ROWS).map(|row| (row % CLASSES) as u16).collect())
}

/// The summed loss, with dropout masks that are the same in every call; and, if asked, the gradients.
fn loss(network: &mut Network, inputs: &[f32], labels: &[u16], loss: Loss, backward: bool) -> f64 {
    let (shared, replicas) = network.split();
    let replica = &mut replicas[0];
    replica.input_mut(ROWS).copy_from_slice(inputs);
    replica.forward(shared, ROWS, Pass::Train(&mut RandomState::new(5)));
    let (outputs, gradient) = replica.output_and_gradient(ROWS);
    let tally = loss.tally(outputs, labels, LossQuirks::default(), Some(gradient));
    if backward {
        replica.backward(shared, ROWS);
    }
    tally.loss
}

/// Weight `index` of the given layer with parameters, or, after the last one, its biases.
fn parameter(network: &mut Network, layer: usize, index: usize) -> &mut f32 {
    let parameters = network.parameters_mut().nth(layer).expect("there is such a layer");
    let weights = parameters.weights.len();
    if index < weights { &mut parameters.weights[index] } else { &mut parameters.bias[index - weights] }
}

/// Moves parameters one by one and compares the slope of the loss with the gradient.
fn check(layers: &str, height: u16, width: u16) {
    check_with("", layers, height, width);
}

fn check_with(more: &str, layers: &str, height: u16, width: u16) {
    for kind in [Loss::CrossEntropy, Loss::SquaredError] {
        let (mut network, inputs, labels) = network(more, layers, height, width);
        loss(&mut network, &inputs, &labels, kind, true);
        let count = network.parameters_mut().count();
        for layer in 0..count {
            let gradients = network.gradients(layer);
            let (weights, biases) = (gradients.weights.len(), gradients.bias.len());
            // A large layer is sampled, the others are checked whole.
            for index in (0..weights + biases).step_by(1 + weights / 300) {
                let analytic = if index < weights { gradients.weights[index] } else { gradients.bias[index - weights] };
                let step = 4e-3f32;
                let mut moved = |by: f32| {
                    let before = *parameter(&mut network, layer, index);
                    *parameter(&mut network, layer, index) = before + by;
                    network.parameters_mut().for_each(Parameters::refresh);
                    let found = loss(&mut network, &inputs, &labels, kind, false);
                    *parameter(&mut network, layer, index) = before;
                    network.parameters_mut().for_each(Parameters::refresh);
                    found
                };
                let numeric = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
                let error = (numeric - f64::from(analytic)).abs();
                let bound = 1e-2 * (1.0 + numeric.abs());
                assert!(error < bound, "{kind:?}, layer {layer}, parameter {index}: {analytic}, expected {numeric}");
            }
        }
    }
}

fn dense(outputs: usize, activation: &str) -> String {
    format!(
        "[[layers]]\ntype = \"dense\"\noutputs = {outputs}\nactivation = \"{activation}\"\ninit = \"glorot-uniform\"\n"
    )
}

fn conv(filters: usize, kernel: &str, more: &str) -> String {
    format!(
        "[[layers]]\ntype = \"conv2d\"\nfilters = {filters}\nkernel = {kernel}\n{more}\ninit = \"glorot-uniform\"\n"
    )
}

#[test]
fn dense_layers_with_every_activation() {
    for activation in ["none", "tanh", "sigmoid"] {
        check(&dense(4, activation), 3, 4);
        check(&format!("{}{}", dense(5, activation), dense(4, activation)), 3, 4);
    }
}

/// ReLU has a corner, so its networks are kept small enough that no step crosses it; the draws are fixed.
#[test]
fn relu() {
    check(&dense(4, "relu"), 2, 3);
}

#[test]
fn dropout_at_half_and_at_other_rates() {
    for rate in ["0.5", "0.2"] {
        check(&format!("{}[[layers]]\ntype = \"dropout\"\nrate = {rate}\n", dense(6, "tanh")), 3, 3);
    }
}

#[test]
fn convolutions_with_padding_stride_and_crop() {
    check(&conv(2, "[3, 3]", "activation = \"tanh\""), 5, 6);
    check(&conv(2, "[2, 3]", "activation = \"tanh\"\npadding = \"same\""), 4, 5);
    check(&conv(3, "[3, 2]", "stride = [2, 1]\npadding = \"same\""), 5, 4);
    check(&conv(2, "[3, 3]", "crop = { bottom = 1, right = 1 }"), 6, 6);
    check(&conv(2, "[2, 2]", "crop = { top = 1, left = 2 }\nstride = [1, 2]"), 5, 7);
}

#[test]
fn depthwise_convolutions() {
    let first = conv(3, "[2, 2]", "activation = \"tanh\"");
    let depthwise =
        |more: &str| format!("[[layers]]\ntype = \"depthwise-conv2d\"\n{more}\ninit = \"glorot-uniform\"\n");
    check(&format!("{first}{}", depthwise("kernel = [3, 3]\npadding = \"same\"\nactivation = \"sigmoid\"")), 5, 6);
    check(&format!("{first}{}", depthwise("kernel = [2, 3]\nstride = [2, 1]\nbias = false")), 6, 5);
}

/// The second convolution checks the gradient for a convolution's input.
#[test]
fn convolutions_behind_convolutions() {
    let first = conv(3, "[3, 3]", "activation = \"tanh\"\npadding = \"same\"");
    let second = conv(2, "[2, 3]", "activation = \"tanh\"\nstride = [2, 1]\npadding = \"same\"");
    check(&format!("{first}{second}"), 5, 5);
    check(&format!("{first}{}", conv(2, "[2, 2]", "crop = { top = 1, right = 1 }")), 5, 5);
}

#[test]
fn max_pooling_with_and_without_overlap() {
    let first = conv(2, "[2, 2]", "activation = \"tanh\"");
    check(&format!("{first}[[layers]]\ntype = \"max-pool2d\"\nkernel = [2, 2]\n"), 6, 7);
    check(&format!("{first}[[layers]]\ntype = \"max-pool2d\"\nkernel = [3, 2]\nstride = [1, 2]\n"), 6, 7);
}

#[test]
fn average_pooling() {
    let first = conv(2, "[2, 2]", "activation = \"tanh\"");
    check(&format!("{first}[[layers]]\ntype = \"avg-pool2d\"\nkernel = [2, 2]\n"), 6, 7);
    check(&format!("{first}[[layers]]\ntype = \"avg-pool2d\"\nkernel = [3, 2]\nstride = [1, 2]\n"), 6, 7);
    check(&format!("{first}[[layers]]\ntype = \"global-avg-pool2d\"\n"), 6, 7);
}

/// As with ReLU, the draws are such that no step crosses a corner.
#[test]
fn bent_activations() {
    check(&conv(2, "[2, 2]", "activation = \"relu6\""), 2, 3);
    check(&conv(2, "[2, 2]", "activation = { leaky-relu = 0.125 }"), 2, 3);
}

/// Batch normalisation behind a dense layer and behind a convolution, whose gradients pass through the mean and the variance.
#[test]
fn batch_normalisation() {
    let normalised = "batch_norm = true\nactivation = \"tanh\"";
    let dense = format!("[[layers]]\ntype = \"dense\"\noutputs = 4\n{normalised}\ninit = \"glorot-uniform\"\n");
    check_with("micro_batch = 5", &format!("{dense}{dense}"), 3, 4);
    check_with("micro_batch = 5", &format!("{}{}", conv(2, "[3, 3]", normalised), conv(3, "[2, 2]", normalised)), 5, 6);
}
