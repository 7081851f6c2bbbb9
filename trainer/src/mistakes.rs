//! The images that a model is wrong about.

use crate::loss::argmax;

/// An image with a wrong answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mistake {
    /// Which image it is.
    pub image: usize,
    /// The class that it is of.
    pub label: usize,
    /// The class that the model takes it for.
    pub answer: usize,
    /// The probability that the model gives to its answer, 0 to 1.
    pub probability: f32,
    /// The probability that it gives to the label.
    pub label_probability: f32,
}

/// The wrong answers that the model is most certain of, at most `count`, beginning with the most certain one. `outputs` are a
/// model's for each image, `[N, classes]`; `labels` are the classes that they are of, `[N]`.
#[must_use]
pub fn worst<L: Copy + Into<usize>>(outputs: &[f32], labels: &[L], classes: usize, count: usize) -> Vec<Mistake> {
    let answers = outputs.chunks_exact(classes.max(1)).zip(labels).enumerate();
    let mut mistakes: Vec<Mistake> = answers
        .map(|(image, (outputs, &label))| {
            let (label, answer) = (label.into(), argmax(outputs));
            // (The outputs of a model without softmax estimate probabilities, but have no bounds.)
            let probability = |class: usize| outputs.get(class).map_or(0.0, |output| output.clamp(0.0, 1.0));
            Mistake { image, label, answer, probability: probability(answer), label_probability: probability(label) }
        })
        .filter(|mistake| mistake.answer != mistake.label)
        .collect();
    // (A stable sort: equally certain ones stay in the order of the images.)
    mistakes.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    mistakes.truncate(count);
    mistakes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_certain_mistakes_come_first() {
        let outputs = [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3], [-0.5, 1.5]].concat();
        let found = worst(&outputs, &[0u8, 1, 0, 1, 0], 2, 3);
        let images: Vec<usize> = found.iter().map(|mistake| mistake.image).collect();
        assert_eq!(images, [4, 2, 3]);
        assert_eq!((found[0].probability, found[0].label_probability), (1.0, 0.0));
        assert_eq!(found[1], Mistake { image: 2, label: 0, answer: 1, probability: 0.8, label_probability: 0.2 });
        assert!(worst(&outputs, &[0u8, 0, 1, 0, 1], 2, 3).is_empty());
    }
}
