//! Which examples are held back: the same ones every time, and of every class as many as its share.

/// The positions of the examples that stay, and of those that are held back: about `fraction` of each class, evenly spaced in
/// the order of the class's examples. With 1/5 it is every fifth example of the class. A class of two examples or more
/// leaves at least one and, if `fraction` is more than 0, holds at least one back.
pub(super) fn hold_back(labels: &[u16], classes: usize, fraction: f64) -> (Vec<usize>, Vec<usize>) {
    let mut counts = vec![0usize; classes];
    labels.iter().for_each(|&label| counts[usize::from(label)] += 1);
    let mut seen = vec![0usize; classes];
    (0..labels.len()).partition(|&index| {
        let class = usize::from(labels[index]);
        seen[class] += 1;
        !is_held_back(seen[class], counts[class], fraction)
    })
}

/// Whether the `number`th (from 1) of `count` examples is held back.
fn is_held_back(number: usize, count: usize, fraction: f64) -> bool {
    if count < 2 || fraction <= 0.0 {
        return false;
    }
    // (A little more than nothing, so that five fifths are one.)
    let held_back = |examples: usize| (examples as f64 * fraction + 1e-9) as usize;
    match held_back(count) {
        0 => number == count,
        all if all >= count => number > 1,
        _ => held_back(number) > held_back(number - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fifth_of_each_class_is_held_back() {
        let labels: Vec<u16> = (0..30).map(|index| u16::from(index % 3 == 0)).collect();
        let (rest, held_back) = hold_back(&labels, 2, 0.2);
        assert_eq!(held_back, [7, 12, 14, 22, 27, 29]);
        assert_eq!(rest.len(), 24);
        assert!(rest.is_sorted() && rest.iter().all(|index| !held_back.contains(index)));
    }

    #[test]
    fn classes_keep_their_share_whatever_the_fraction() {
        let labels: Vec<u16> = (0..1000).map(|index| u16::from(index % 10 == 0)).collect();
        for fraction in [0.01, 0.1, 0.25, 1.0 / 3.0, 0.5, 0.9] {
            let (rest, held_back) = hold_back(&labels, 2, fraction);
            assert_eq!(rest.len() + held_back.len(), 1000);
            for (class, count) in [(0, 900.0), (1, 100.0)] {
                let found = held_back.iter().filter(|&&index| labels[index] == class).count() as f64;
                assert!((found - count * fraction).abs() < 1.0, "{found} of {count} at {fraction}");
            }
        }
    }

    #[test]
    fn small_classes_have_one_of_each_where_they_can() {
        assert_eq!(hold_back(&[0, 0], 1, 0.2), (vec![0], vec![1]));
        assert_eq!(hold_back(&[0, 0], 1, 1.0), (vec![0], vec![1]));
        assert_eq!(hold_back(&[0], 1, 0.9), (vec![0], vec![]));
        assert_eq!(hold_back(&[0, 0], 1, 0.0), (vec![0, 1], vec![]));
        assert_eq!(hold_back(&[], 3, 0.2), (vec![], vec![]));
    }
}
