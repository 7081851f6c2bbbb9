//! How well a network in training does.

use crate::data::DataSet;
use crate::layers::Pass;
use crate::loss::Tally;
use crate::network::{Network, Replica};
use crate::recipe::Recipe;
use rayon::prelude::*;

/// Tallies the network's answers to `images`, without dropout.
pub fn measure(network: &mut Network, recipe: &Recipe, images: &DataSet) -> Tally {
    let order: Vec<usize> = (0..images.len()).collect();
    measure_some(network, recipe, images, &order)
}

/// As [`measure`], for the images named by `indices`.
pub(super) fn measure_some(network: &mut Network, recipe: &Recipe, images: &DataSet, indices: &[usize]) -> Tally {
    let rows = network.slice_rows();
    let (shared, replicas) = network.split();
    let mut tally = Tally::default();
    let answer = |replica: &mut Replica, slice: &[usize]| {
        let labels: Vec<u16> = slice.iter().map(|&index| images.labels[index]).collect();
        replica.load(images, slice);
        let outputs = replica.forward(shared, slice.len(), Pass::Test);
        recipe.loss.tally(outputs, &labels, recipe.quirks.of_loss(), None)
    };
    for wave in indices.chunks(rows * replicas.len()) {
        let slices = replicas.par_iter_mut().zip(wave.par_chunks(rows));
        // Added up in order: the sum of the losses is the same whatever the number of threads.
        let tallies: Vec<Tally> = slices.map(|(replica, slice)| answer(replica, slice)).collect();
        tallies.into_iter().for_each(|part| tally += part);
    }
    tally
}
