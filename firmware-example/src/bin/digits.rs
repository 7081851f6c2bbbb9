//! Classifies test digits on an emulated microcontroller and compares every result with the desktop's.
//!
//! `cargo xtask firmware`, in the root of the repository, makes the digits and runs this under QEMU; `build.rs` chooses the
//! machine and the model. The exit code is 0 only if all predictions are the desktop's and no logit differs from the
//! desktop's by more than [`LARGEST_DIFFERENCE`].
#![no_std]
#![no_main]

use firmware_example::digits_file::{CLASSES, Digit, PIXELS};
use firmware_example::machine::{self, InstructionCounter};
use firmware_example::stack;
use semihosting::println;
use static_cell::ConstStaticCell;

#[cfg(not(has_digits))]
compile_error!(
    "firmware-example/assets has no test digits for this model: run `cargo xtask firmware` in the root of the repository"
);
#[cfg(has_digits)]
thumbnet::include_model! { mod digits = concat!(env!("OUT_DIR"), "/model.tnet"); }
#[cfg(has_digits)]
static DIGITS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/digits.bin"));

/// With f32 the desktop may add in another order, or round once where this processor rounds twice: the last bits differ. Int8
/// arithmetic is the same everywhere.
const LARGEST_DIFFERENCE: f32 = if digits::OPS & thumbnet::ops::QUANTIZE != 0 { 0.0 } else { 1e-4 };

/// What the summary tells.
#[derive(Default)]
struct Summary {
    digits: u32,
    correct: u32,
    unlike_desktop: u32,
    largest_difference: f32,
    instructions: u64,
    stack: usize,
}

static SCRATCH: ConstStaticCell<digits::Scratch> = ConstStaticCell::new(digits::Scratch::zeroed());

#[machine::entry]
fn main() -> ! {
    stack::paint();
    let scratch = SCRATCH.take();
    let mut counter = InstructionCounter::start().expect("main runs once");
    let model = digits::load().expect("the blob is intact");
    let mut summary = Summary::default();

    let (count, mut rest) = postcard::take_from_bytes::<u32>(DIGITS).expect("digits.bin starts with a count");
    for _ in 0..count {
        let digit: Digit;
        (digit, rest) = postcard::take_from_bytes(rest).expect("digits.bin holds as many digits as it says");
        let pixels: &[u8; PIXELS] = digit.pixels.try_into().expect("an image has 784 pixels");

        let (result, instructions) = counter.count(|| model.classify(pixels, scratch));
        if summary.digits == 0 {
            summary.stack = stack::high_water_mark(); // before anything is printed: formatting needs more than inference
        }
        let logits = model.logits(pixels, scratch);

        println!("label {}  prediction {}  probability {:.4}", digit.label, result.label, result.probability);
        if result.class != usize::from(digit.prediction) {
            println!("  the desktop's prediction is {}", digit.prediction);
            summary.unlike_desktop += 1;
        }
        summary.digits += 1;
        summary.correct += u32::from(result.class == usize::from(digit.label));
        summary.largest_difference = largest_difference(summary.largest_difference, &logits, &digit.logits);
        summary.instructions += instructions;
    }
    report(&summary);
    let same = count > 0 && summary.unlike_desktop == 0 && summary.largest_difference <= LARGEST_DIFFERENCE;
    semihosting::process::exit(i32::from(!same))
}

/// The larger of `largest` and the largest |difference| between `a` and `b`; NaN, which equals nothing, stays.
fn largest_difference(largest: f32, a: &[f32; CLASSES], b: &[f32; CLASSES]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(largest, |largest, difference| {
        if difference > largest || difference.is_nan() { difference } else { largest }
    })
}

fn report(summary: &Summary) {
    println!(
        "{}/{} correct, {} instructions per inference, {} B scratch, {} B stack",
        summary.correct,
        summary.digits,
        summary.instructions / u64::from(summary.digits.max(1)),
        digits::SCRATCH_BYTES,
        summary.stack
    );
    println!(
        "kernels: {}; desktop's predictions: {} differ; largest logit difference {:e} (allowed {:e})",
        thumbnet::kernels::built_for(),
        summary.unlike_desktop,
        summary.largest_difference,
        LARGEST_DIFFERENCE
    );
}
