use super::*;
use proptest::prelude::*;

const STILL: Placement = Placement { shift: [0.0; 2], rotation: 0.0, shear: 0.0, scale: [1.0; 2] };

fn augmenter(augment: Augment, shape: Shape) -> Augmenter {
    Augmenter::new(augment, shape).unwrap()
}

/// A smooth spot off the centre, in the first channel stronger than in the others.
fn spot(shape: Shape) -> Vec<f32> {
    let (height, width, channels) = (f32::from(shape.height), f32::from(shape.width), usize::from(shape.channels));
    let value = |index: usize| {
        let (pixel, channel) = (index / channels, index % channels);
        let (row, column) = (pixel / usize::from(shape.width), pixel % usize::from(shape.width));
        let (y, x) = (row as f32 - 0.55 * height, column as f32 - 0.45 * width);
        (-(y * y + x * x) / 12.0).exp() / (1 + channel) as f32
    };
    (0..shape.elements().unwrap() as usize).map(value).collect()
}

fn moved(image: &[f32], shape: Shape, placement: Placement) -> Vec<f32> {
    let mut image = image.to_vec();
    Resampler::new(shape).apply(&mut image, &placement, None);
    image
}

/// Values `row * 10 + column + 1` (channel `c` adds `c / 10`), so that each tells where it came from.
fn numbered(shape: Shape) -> Vec<f32> {
    let (width, channels) = (usize::from(shape.width), usize::from(shape.channels));
    let value = |index: usize| {
        let (pixel, channel) = (index / channels, index % channels);
        (pixel / width * 10 + pixel % width + 1) as f32 + channel as f32 / 10.0
    };
    (0..shape.elements().unwrap() as usize).map(value).collect()
}

fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() < 1e-4, "at {index}: {found}, expected {expected}");
    }
}

#[test]
fn nothing_asked_for_changes_nothing() {
    for shape in [Shape::new(28, 28, 1), Shape::new(5, 7, 3), Shape::new(1, 100, 2)] {
        let original = numbered(shape);
        let mut image = original.clone();
        augmenter(Augment::default(), shape).apply(&mut image, &mut rng_for(1, 2, 3));
        assert_eq!(image, original);
        assert_eq!(moved(&original, shape, STILL), original);
    }
}

#[test]
fn whole_pixels_are_shifted_exactly() {
    let shape = Shape::new(3, 4, 1);
    let down_and_left = moved(&numbered(shape), shape, Placement { shift: [1.0, -2.0], ..STILL });
    assert_eq!(down_and_left, [0.0, 0.0, 0.0, 0.0, 3.0, 4.0, 0.0, 0.0, 13.0, 14.0, 0.0, 0.0]);
    let far = moved(&numbered(shape), shape, Placement { shift: [0.0, 1e9], ..STILL });
    assert_eq!(far, [0.0; 12]);
    // Two channels move together.
    let shape = Shape::new(1, 3, 2);
    assert_eq!(
        moved(&numbered(shape), shape, Placement { shift: [5.0, 1.0], ..STILL }),
        [0.0, 0.0, 1.0, 1.1, 2.0, 2.1]
    );
}

#[test]
fn half_a_pixel_is_the_mean_of_two() {
    let shape = Shape::new(1, 4, 1);
    let shifted = moved(&[0.0, 1.0, 3.0, 0.5], shape, Placement { shift: [0.0, 0.5], ..STILL });
    assert_eq!(shifted, [0.0, 0.5, 2.0, 1.75]);
}

#[test]
fn a_right_angle_and_a_half_turn() {
    let quarter = Placement { rotation: std::f32::consts::FRAC_PI_2, ..STILL };
    for (shape, channels) in [(Shape::new(3, 3, 1), 1), (Shape::new(4, 4, 3), 3)] {
        let side = usize::from(shape.height);
        let original = numbered(shape);
        // Clockwise as one sees it: the first row becomes the last column.
        let expected: Vec<f32> = (0..original.len())
            .map(|index| {
                let (pixel, channel) = (index / channels, index % channels);
                let (row, column) = (pixel / side, pixel % side);
                original[((side - 1 - column) * side + row) * channels + channel]
            })
            .collect();
        assert_close(&moved(&original, shape, quarter), &expected);
    }
    let shape = Shape::new(3, 5, 1);
    let mut turned = moved(&numbered(shape), shape, Placement { rotation: std::f32::consts::PI, ..STILL });
    turned.reverse();
    assert_close(&turned, &numbered(shape));
}

#[test]
fn doubling_spreads_the_middle_over_the_image() {
    let shape = Shape::new(1, 5, 1);
    let doubled = moved(&[9.0, 1.0, 2.0, 4.0, 9.0], shape, Placement { scale: [2.0; 2], ..STILL });
    assert_close(&doubled, &[1.0, 1.5, 2.0, 3.0, 4.0]);
    let halved = moved(&[9.0, 1.0, 2.0, 4.0, 9.0], shape, Placement { scale: [2.0, 0.5], ..STILL });
    assert_close(&halved, &[0.0, 9.0, 2.0, 9.0, 0.0]);
}

#[test]
fn a_shear_slants_columns_and_leaves_the_middle_row() {
    let shape = Shape::new(3, 5, 1);
    let mut column = vec![0.0; 15];
    (0..3).for_each(|row| column[row * 5 + 2] = 1.0);
    let slanted = moved(&column, shape, Placement { shear: std::f32::consts::FRAC_PI_4, ..STILL });
    let expected = [[0.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 0.0]].concat();
    assert_close(&slanted, &expected);
}

/// Everything that moves pixels, moderately.
fn motion() -> Augment {
    Augment { rotate: 15.0, shift: 2.0, scale: 0.1, shear: 10.0, elastic: 1.2, ..Augment::default() }
}

#[test]
fn light_is_moved_but_roughly_kept() {
    let shape = Shape::new(28, 28, 1);
    let original = spot(shape);
    let mass = |image: &[f32]| image.iter().sum::<f32>();
    let mut augmenter = augmenter(motion(), shape);
    let mut ratios = 0.0;
    for index in 0..500 {
        let mut image = original.clone();
        augmenter.apply(&mut image, &mut rng_for(1, 1, index));
        assert_ne!(image, original);
        let ratio = mass(&image) / mass(&original);
        assert!((0.3..3.0).contains(&ratio), "{index}: {ratio}");
        ratios += ratio;
    }
    let mean = ratios / 500.0;
    assert!((mean - 1.0).abs() < 0.03, "{mean}");
}

#[test]
fn displacements_are_as_strong_and_as_smooth_as_asked_for() {
    for (size, strength, smoothness) in [([40, 40], 0.7, 4.0), ([25, 60], 1.5, 2.0), ([1, 200], 1.0, 6.0)] {
        let mut elastic = Elastic::new(size, strength, smoothness);
        let mut rng = rng_for(3, 1, 4);
        let (mut squares, mut steps, mut count) = ([0.0f64; 2], 0.0f64, 0.0f64);
        for _ in 0..400 {
            elastic.draw(&mut rng);
            for row in 0..usize::from(size[0]) {
                let mut before = None;
                for column in 0..usize::from(size[1]) {
                    let displaced = elastic.displaced(row, column / resample::LANES, [[0.0; resample::LANES]; 2]);
                    let displacement = displaced.map(|lanes| f64::from(lanes[column % resample::LANES]));
                    (0..2).for_each(|axis| squares[axis] += displacement[axis].powi(2));
                    steps += (displacement[1] - before.unwrap_or(displacement[1])).powi(2);
                    before = Some(displacement[1]);
                    count += 1.0;
                }
            }
        }
        let [y, x] = squares.map(|sum| (sum / count).sqrt() / f64::from(strength));
        assert!((x - 1.0).abs() < 0.05, "{size:?}: {x}");
        assert!(if size[0] == 1 { y == 0.0 } else { (y - 1.0).abs() < 0.05 }, "{size:?}: {y}");
        // White noise behind a Gaussian filter of deviation s has a slope of 1 / (s * sqrt(2)) of its own deviation.
        let slope = (steps / count).sqrt() / f64::from(strength) * f64::from(smoothness) * 2f64.sqrt();
        assert!((slope - 1.0).abs() < 0.15, "{size:?}: {slope}");
    }
}

#[test]
fn an_image_depends_on_its_numbers_alone() {
    let shape = Shape::new(28, 28, 1);
    let all = Augment { erase: 0.5, noise: 0.1, ..motion() };
    let image = |augmenter: &mut Augmenter, seed, epoch, index| {
        let mut image = spot(shape);
        augmenter.apply(&mut image, &mut rng_for(seed, epoch, index));
        image
    };
    let mut used = augmenter(all, shape);
    let first = image(&mut used, 1, 2, 3);
    let others = [(2, 2, 3), (1, 3, 3), (1, 2, 4), (1, 1, 4), (2, 1, 3)].map(|(s, e, i)| image(&mut used, s, e, i));
    assert!(others.iter().all(|other| *other != first));
    assert_eq!(image(&mut used, 1, 2, 3), first);
    assert_eq!(image(&mut augmenter(all, shape), 1, 2, 3), first);
}

#[test]
fn generators_are_fixed_for_all_time() {
    // Files that were made with them are to be made again. The words were computed from the algorithms' publications:
    // Steele et al., "Fast Splittable Pseudorandom Number Generators" (2014); Blackman and Vigna, "Scrambled Linear
    // Pseudorandom Number Generators" (2021).
    let words = [rng_for(0, 0, 0), rng_for(1, 2, 3), rng_for(u32::MAX, u32::MAX, 59_999)].map(|mut rng| rng.next_u64());
    assert_eq!(words, [9_579_327_875_526_494_010, 13_931_772_331_417_248_489, 11_437_946_297_653_081_138]);
}

#[test]
fn erased_rectangles_are_as_frequent_and_as_large_as_asked_for() {
    let shape = Shape::new(20, 30, 2);
    let mut augmenter = augmenter(Augment { erase: 0.25, erase_size: 5, ..Augment::default() }, shape);
    let (mut erased, mut area, mut seen) = (0, 0, vec![false; 600]);
    for index in 0..16_000 {
        let mut image = vec![1.0; 1_200];
        augmenter.apply(&mut image, &mut rng_for(7, 1, index));
        let holes: Vec<usize> = (0..600).filter(|pixel| image[2 * pixel] == 0.0).collect();
        assert!(image.chunks_exact(2).all(|pixel| pixel[0] == pixel[1]));
        let Some((first, last)) = holes.first().zip(holes.last()) else { continue };
        let (rows, columns) = (last / 30 - first / 30 + 1, last % 30 - first % 30 + 1);
        assert!((1..=5).contains(&rows) && (1..=5).contains(&columns) && holes.len() == rows * columns);
        holes.iter().for_each(|&pixel| seen[pixel] = true);
        (erased, area) = (erased + 1, area + holes.len());
    }
    assert!((3_800..4_200).contains(&erased), "{erased}");
    // Sides are 3 on average.
    let mean = area as f64 / f64::from(erased);
    assert!((mean - 9.0).abs() < 0.4, "{mean}");
    assert!(seen.iter().all(|&seen| seen), "corners are erased as well");
}

#[test]
fn noise_has_the_deviation_asked_for() {
    let shape = Shape::new(100, 100, 1);
    let mut image = vec![0.5; 10_000];
    augmenter(Augment { noise: 0.2, ..Augment::default() }, shape).apply(&mut image, &mut rng_for(5, 1, 1));
    let moment = |power| image.iter().map(|value| f64::from((value - 0.5) / 0.2).powi(power)).sum::<f64>() / 1e4;
    let (mean, variance, third, fourth) = (moment(1), moment(2), moment(3), moment(4));
    assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    assert!(third.abs() < 0.1 && (fourth - 3.0).abs() < 0.25, "{third} {fourth}");
}

#[test]
fn senseless_values_are_refused_by_name() {
    let base = Augment::default();
    let cases = [
        (Augment { rotate: 200.0, ..base }, "augment.rotate = 200: expected 0 to 180"),
        (Augment { rotate: -1.0, ..base }, "augment.rotate = -1"),
        (Augment { shift: f32::NAN, ..base }, "augment.shift = NaN"),
        (Augment { scale: 1.0, ..base }, "augment.scale = 1"),
        (Augment { shear: 90.0, ..base }, "augment.shear = 90"),
        (Augment { elastic: f32::INFINITY, ..base }, "augment.elastic = inf"),
        (Augment { elastic_smoothness: 0.0, ..base }, "augment.elastic_smoothness = 0"),
        (Augment { erase: 1.5, ..base }, "augment.erase = 1.5"),
        (Augment { erase_size: 0, ..base }, "augment.erase_size = 0"),
        (Augment { noise: -0.1, ..base }, "augment.noise = -0.1"),
    ];
    for (augment, message) in cases {
        let problem = augment.check().unwrap_err();
        assert!(problem.contains(message), "{problem}");
    }
    let signal = Shape::new(1, 50, 1);
    let problem = Augmenter::new(Augment { shear: 5.0, ..base }, signal).unwrap_err();
    assert!(problem.contains("augment.shear = 5: the inputs are 1 x 50"), "{problem}");
    assert!(Augmenter::new(Augment { rotate: 0.0, shear: 0.0, ..motion() }, signal).is_ok());
}

#[test]
fn a_table_of_a_recipe() {
    let augment: Augment = toml::from_str("rotate = 10\nelastic = 0.5").unwrap();
    assert_eq!(augment, Augment { rotate: 10.0, elastic: 0.5, ..Augment::default() });
    assert!(!augment.is_off() && Augment::default().is_off());
    assert_eq!(toml::from_str::<Augment>(&toml::to_string(&augment).unwrap()).unwrap(), augment);
    assert!(toml::from_str::<Augment>("rotation = 10").unwrap_err().to_string().contains("rotate"));
}

proptest! {
    /// Interpolation makes no value that is not between two others; what moves in is 0.
    #[test]
    fn values_stay_between_the_least_and_the_greatest(
        (height, width, channels) in (1u16..12, 1u16..12, 1u16..4),
        shift in 0f32..30.0,
        (rotate, scale, shear) in (0f32..180.0, 0f32..0.9, 0f32..80.0),
        (elastic, elastic_smoothness) in (0f32..10.0, 1f32..20.0),
        (low, range) in (-2f32..2.0, 0f32..3.0),
        index in 0usize..1_000_000,
    ) {
        let shape = Shape::new(height, width, channels);
        let flat = height == 1 || width == 1;
        let [rotate, shear] = [rotate, shear].map(|angle| if flat { 0.0 } else { angle });
        let augment = Augment { rotate, shift, scale, shear, elastic, elastic_smoothness, ..Augment::default() };
        let mut rng = rng_for(1, 1, index);
        let mut image: Vec<f32> =
            (0..shape.elements().unwrap()).map(|_| low + range * unit(rng.next_u32())).collect();
        augmenter(augment, shape).apply(&mut image, &mut rng);
        let (least, greatest) = (low.min(0.0) - 1e-5, (low + range).max(0.0) + 1e-5);
        for value in image {
            prop_assert!((least..=greatest).contains(&value), "{value} is not in {least}..={greatest}");
        }
    }
}
