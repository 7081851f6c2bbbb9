//! The classifier as a device would run it: no semihosting, no formatting, no heap, and no way to panic.
//!
//! Builds for an STM32F411 (`--target thumbv7em-none-eabihf`) and an RP2040 (`--target thumbv6m-none-eabi`). What a real
//! device adds is the driver that fills [`FRAME`] and whatever acts on [`RESULT`].
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use cortex_m_rt::entry;
use firmware_example::digits_file::PIXELS;
use model::{classify, load};
use thumbnet::Classification;

thumbnet::include_model! { mod digits = "../../../models/digits.tnet"; }

/// The boot ROM of the RP2040 runs this before the program; it suits any flash chip.
#[cfg(target_abi = "eabi")]
#[used]
#[unsafe(link_section = ".boot2")]
static BOOT2: [u8; 256] = rp2040_boot2::BOOT_LOADER_GENERIC_03H;

/// The image, written by an interrupt handler, by DMA or through a debugger. `#[used]`: the compiler cannot see who.
#[used]
static FRAME: [AtomicU8; PIXELS] = [const { AtomicU8::new(0) }; PIXELS];

/// Set by whoever wrote [`FRAME`]; cleared when the image has been taken over.
#[used]
static FRAME_READY: AtomicBool = AtomicBool::new(false);

/// The latest result: class, and the bits of its probability (an `f32`).
#[used]
static RESULT: (AtomicU8, AtomicU32) = (AtomicU8::new(u8::MAX), AtomicU32::new(0));

#[entry]
fn main() -> ! {
    // cortex-m-rt turns these into `&'static mut`: in the RAM that the linker accounts for, not on the stack.
    static mut IMAGE: [u8; PIXELS] = [0; PIXELS];
    static mut SCRATCH: digits::Scratch = digits::Scratch::zeroed();

    // A model that was checked when it was compiled in only fails here if the flash is damaged.
    let Ok(model) = load() else { halt() };
    loop {
        while !FRAME_READY.load(Ordering::Acquire) {
            cortex_m::asm::wfe();
        }
        for (pixel, received) in IMAGE.iter_mut().zip(&FRAME) {
            *pixel = received.load(Ordering::Relaxed);
        }
        FRAME_READY.store(false, Ordering::Release);
        #[cfg(feature = "control-panic")]
        assert!(IMAGE[0] == 0, "a panic that must not link");
        if let Some(result) = classify(&model, IMAGE, SCRATCH) {
            RESULT.1.store(result.probability.to_bits(), Ordering::Relaxed);
            RESULT.0.store(result.class as u8, Ordering::Release);
        }
    }
}

#[cfg(not(any(feature = "any-model", feature = "any-ensemble")))]
mod model {
    //! The model is known when the program is compiled: sizes are types, and only the kernels it needs are linked.
    use super::*;

    pub(crate) fn load() -> Result<digits::Model, thumbnet::LoadError> {
        digits::load()
    }

    pub(crate) fn classify(
        model: &digits::Model,
        image: &[u8; PIXELS],
        scratch: &mut digits::Scratch,
    ) -> Option<Classification<'static>> {
        Some(model.classify(image, scratch))
    }
}

#[cfg(feature = "any-model")]
mod model {
    //! The model is whatever lies in the flash: every kernel is linked, and a model of another size is an error.
    use super::*;

    pub(crate) fn load() -> Result<thumbnet::Model<'static>, thumbnet::LoadError> {
        thumbnet::Model::load(core::hint::black_box(digits::BLOB))
    }

    pub(crate) fn classify(
        model: &thumbnet::Model<'static>,
        image: &[u8; PIXELS],
        scratch: &mut digits::Scratch,
    ) -> Option<Classification<'static>> {
        model.classify(image, scratch).ok()
    }
}

#[cfg(feature = "any-ensemble")]
mod model {
    //! What lies in the flash is an ensemble of any models.
    use super::*;
    use thumbnet::{Ensemble, EnsembleError};

    pub(crate) fn load() -> Result<Ensemble<'static>, EnsembleError> {
        Ensemble::load(core::hint::black_box(digits::BLOB))
    }

    pub(crate) fn classify(
        ensemble: &Ensemble<'static>,
        image: &[u8; PIXELS],
        scratch: &mut digits::Scratch,
    ) -> Option<Classification<'static>> {
        ensemble.classify(image, scratch).ok()
    }
}

fn halt() -> ! {
    loop {
        cortex_m::asm::wfi();
    }
}

/// In a release build this calls a function that exists nowhere: the program links only if the compiler has seen that no
/// panic can be reached. An unoptimised build keeps checks that never fire, so it just stops.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    #[cfg(debug_assertions)]
    halt();
    #[cfg(not(debug_assertions))]
    {
        unsafe extern "C" {
            safe fn thumbnet_panic_is_reachable() -> !;
        }
        thumbnet_panic_is_reachable()
    }
}
