//! The firmware example, run under QEMU on a matrix of machines.

use crate::{command, digits, toolchain};
use anyhow::{Context, Result, ensure};
use object::{Object, ObjectSection, SectionFlags, SectionKind};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// The target of the machine that stands first in [`MACHINES`].
pub(crate) const TARGET: &str = MACHINES[0].target;

/// What brings the emulator.
pub(crate) const QEMU_REMEDY: &str = "`apt-get install qemu-system-arm` on Debian, `brew install qemu` on a Mac";
/// The test images that are classified on [`MACHINES`]`[0]`.
pub(crate) const IMAGES: usize = 100;

/// The test images that are classified on each machine of the matrix, unless `--images` says otherwise.
pub(crate) const MATRIX_IMAGES: usize = 20;

/// An emulated run takes well under a minute; one that hangs is ended.
const LIMIT: Duration = Duration::from_secs(180);

/// An emulated machine, and what the firmware runs on it.
struct Machine {
    /// QEMU's name for it.
    name: &'static str,
    /// Its processor, in words.
    core: &'static str,
    /// The emulator.
    qemu: &'static str,
    /// What the emulator needs beside the machine's name and what [`Machine::emulator`] gives to all.
    arguments: &'static [&'static str],
    /// Rust's target.
    target: &'static str,
    /// `-C target-cpu`; "" for the target's own.
    cpu: &'static str,
    /// The file in `firmware-example/memory`, without `.x`.
    layout: &'static str,
    /// Clock of the timer that counts instructions, in Hz; where the processor counts them itself it is not used.
    timer_hz: u32,
    /// Models that fit into the layout, by the names that `digits::read_model` knows.
    models: &'static [&'static str],
}

/// The Debian packages that bring the emulators.
const QEMU_ARM: &str = "qemu-system-arm";
const QEMU_RISCV: &str = "qemu-system-riscv32";

/// Every machine. The first is the one that `cargo xtask firmware` runs on, and the one that `.cargo/config.toml` of the
/// firmware describes.
#[rustfmt::skip]
const MACHINES: &[Machine] = &[
    Machine {
        name: "mps2-an386", core: "Cortex-M4F", qemu: QEMU_ARM, arguments: &[],
        target: "thumbv7em-none-eabihf", cpu: "cortex-m4", layout: "mps2-an386", timer_hz: 25_000_000,
        models: &["digits", "s1-fixed", "digits-int8", "cnn-8-16-int8"],
    },
    Machine {
        name: "microbit", core: "Cortex-M0", qemu: QEMU_ARM, arguments: &[],
        target: "thumbv6m-none-eabi", cpu: "", layout: "microbit", timer_hz: 16_000_000,
        models: &["cnn-8-16-int8"],
    },
    Machine {
        name: "lm3s6965evb", core: "Cortex-M3", qemu: QEMU_ARM, arguments: &[],
        target: "thumbv7m-none-eabi", cpu: "", layout: "lm3s6965evb", timer_hz: 12_500_000,
        models: &["digits-int8", "cnn-8-16-f16"],
    },
    Machine {
        name: "mps2-an500", core: "Cortex-M7", qemu: QEMU_ARM, arguments: &[],
        target: "thumbv7em-none-eabihf", cpu: "cortex-m7", layout: "mps2-an386", timer_hz: 25_000_000,
        models: &["s1-fixed-int8"],
    },
    Machine {
        name: "mps2-an505", core: "Cortex-M33", qemu: QEMU_ARM, arguments: &[],
        target: "thumbv8m.main-none-eabihf", cpu: "cortex-m33", layout: "mps2-an505", timer_hz: 20_000_000,
        models: &["digits", "digits-int8"],
    },
    Machine {
        name: "mps3-an547", core: "Cortex-M55", qemu: QEMU_ARM, arguments: &[],
        target: "thumbv8m.main-none-eabihf", cpu: "cortex-m55", layout: "mps3-an547", timer_hz: 32_000_000,
        models: &["cnn-8-16-int8"],
    },
    Machine {
        name: "virt", core: "RV32IMC", qemu: QEMU_RISCV, arguments: &["-bios", "none"],
        target: "riscv32imc-unknown-none-elf", cpu: "", layout: "riscv-virt", timer_hz: 0,
        models: &["digits", "cnn-8-16-int8"],
    },
];

/// Runs the firmware on the first machine with every model of its; gives the first exit code that is not 0.
pub(crate) fn run(images: usize) -> Result<u8> {
    let machine = &MACHINES[0];
    machine.require()?;
    for model in machine.models {
        println!("\n{model}.tnet");
        machine.build(model, images)?;
        let status = command::run_within(LIMIT, machine.emulator("digits"))?;
        if !status.success() {
            // No code: ended by a signal.
            return Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX));
        }
    }
    Ok(0)
}

/// Runs the int8 models on the first machine with a thousand images, whose logits must be the desktop's to the last bit.
pub(crate) fn compare_int8() -> Result<()> {
    let machine = &MACHINES[0];
    machine.require()?;
    for model in machine.models.iter().filter(|model| model.ends_with("-int8")) {
        machine.build(model, 1000)?;
        println!("{}", machine.measure(model)?);
    }
    Ok(())
}

/// Compares the kernels with plain loops on the first machine.
pub(crate) fn compare_kernels() -> Result<()> {
    let machine = &MACHINES[0];
    machine.require()?;
    machine.build_program("kernels", machine.models[0])?;
    let status = command::run_within(LIMIT, machine.emulator("kernels"))?;
    ensure!(status.success(), "the program: {status}");
    Ok(())
}

/// Runs the firmware on every machine and prints a table. An error if a result is not the desktop's.
pub(crate) fn run_matrix(images: usize) -> Result<()> {
    MACHINES.iter().try_for_each(Machine::require)?;
    let mut lines = Vec::new();
    for machine in MACHINES {
        for model in machine.models {
            machine.build(model, images)?;
            lines.push(machine.measure(model)?);
        }
    }
    println!("\n{}", lines.join("\n"));
    Ok(())
}

/// Builds `device` for the first machine and gives the command that runs it, its UART a TCP server on `port` of this machine.
pub(crate) fn device_emulator(port: u16) -> Result<Command> {
    let machine = &MACHINES[0];
    machine.require()?;
    machine.build_program("device", machine.models[0])?;
    Ok(machine.emulator_with_serial("device", &format!("tcp:127.0.0.1:{port},server=on,wait=off")))
}

impl Machine {
    /// Makes sure that the emulator and the target are there.
    fn require(&self) -> Result<()> {
        let package = if self.qemu == QEMU_RISCV { "qemu-system-misc" } else { self.qemu };
        toolchain::require_program(
            self.qemu,
            &format!("`apt-get install {package}` on Debian, `brew install qemu` on a Mac"),
        )?;
        toolchain::prepare_bare_metal(&mut cargo(), self.target)
    }

    /// Makes the digits file and builds `digits`.
    fn build(&self, model: &str, images: usize) -> Result<()> {
        digits::make_file(model, images)?;
        self.build_program("digits", model)
    }

    /// Builds a program of the firmware for this machine, `digits` with this model.
    fn build_program(&self, program: &str, model: &str) -> Result<()> {
        let mut cargo = cargo();
        if !self.cpu.is_empty() {
            let variable = format!("CARGO_TARGET_{}_RUSTFLAGS", self.target.to_uppercase().replace(['-', '.'], "_"));
            cargo.env(variable, format!("-Ctarget-cpu={}", self.cpu));
        }
        cargo.env("THUMBNET_MACHINE", self.layout).env("THUMBNET_MODEL", model);
        cargo.env("THUMBNET_CLOCK_HZ", self.timer_hz.to_string());
        cargo.args(["build", "--quiet", "--release", "--bin", program, "--target", self.target]);
        cargo.arg("--target-dir").arg(target_dir());
        toolchain::prepare_bare_metal(&mut cargo, self.target)?;
        command::run(&mut cargo)
    }

    /// Where [`Machine::build_program`] puts a program.
    fn elf(&self, program: &str) -> PathBuf {
        target_dir().join(self.target).join("release").join(program)
    }

    /// QEMU with a program of the firmware, counting instructions.
    fn emulator(&self, program: &str) -> Command {
        let mut qemu = self.emulator_with_serial(program, "none");
        qemu.args(["-icount", "shift=0", "-semihosting-config", "enable=on,target=native"]);
        qemu
    }

    /// QEMU with a program of the firmware, and the machine's first serial port where `serial` says.
    fn emulator_with_serial(&self, program: &str, serial: &str) -> Command {
        let mut qemu = Command::new(self.qemu);
        qemu.args(["-machine", self.name, "-display", "none", "-monitor", "none", "-serial", serial]);
        qemu.args(self.arguments).arg("-kernel").arg(self.elf(program));
        qemu
    }

    /// Runs the `digits` that was built last and gives a line of the table.
    fn measure(&self, model: &str) -> Result<String> {
        let (status, output) = command::output_within(LIMIT, self.emulator("digits"))?;
        ensure!(status.success(), "{output}{}, {model}: {status}", self.name);
        let number =
            |unit: &str| number_before(&output, unit).with_context(|| format!("{output}no number before {unit:?}"));
        let images = number(" correct")?;
        let size = Size::of(&fs::read(self.elf("digits"))?)?;
        Ok(format!(
            "{:<11} {:<10} {:<10} {:>3}/{} correct, {} unlike the desktop, {:>10} instructions per inference, \
             {:>6} B flash without the digits ({} the model), {:>5} B RAM ({} static + {} stack)",
            self.name,
            self.core,
            model,
            number(&format!("/{images} correct"))?,
            images,
            number(" differ;")?,
            number(" instructions per inference")?,
            size.flash - fs::metadata(digits::path(model))?.len(),
            digits::read_model(model)?.len(),
            size.ram + number(" B stack")?,
            size.ram,
            number(" B stack")?
        ))
    }
}

/// What a program takes of a device's memory, without the stack.
struct Size {
    /// Code, constants and the initial values of variables, in bytes.
    flash: u64,
    /// Variables, in bytes.
    ram: u64,
}

impl Size {
    fn of(elf: &[u8]) -> Result<Self> {
        let mut size = Self { flash: 0, ram: 0 };
        for section in object::File::parse(elf)?.sections() {
            let SectionFlags::Elf { sh_flags, .. } = section.flags() else { continue };
            // riscv-rt has sections that stand for the free RAM.
            if !sh_flags.contains(object::elf::SHF_ALLOC) || [".stack", ".heap"].contains(&section.name()?) {
                continue;
            }
            if section.kind() != SectionKind::UninitializedData {
                size.flash += section.size();
            }
            if sh_flags.contains(object::elf::SHF_WRITE) {
                size.ram += section.size();
            }
        }
        Ok(size)
    }
}

/// The number that ends where the last `unit` in `text` starts.
fn number_before(text: &str, unit: &str) -> Option<u64> {
    let before = &text[..text.rfind(unit)?];
    before[before.trim_end_matches(|c: char| c.is_ascii_digit()).len()..].parse().ok()
}

/// Where the machines' programs are built: a folder of their own, so that nothing depends on how cargo is configured.
fn target_dir() -> PathBuf {
    command::firmware().join("target/machines")
}

/// `cargo` in the firmware's workspace.
pub(crate) fn cargo() -> Command {
    let mut cargo = command::cargo();
    cargo.current_dir(command::firmware());
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_the_firmware_s_summary() {
        let summary = "7 correct\n86/100 correct, 1703624 instructions per inference, 40040 B scratch, 4196 B stack\n";
        let read = ["/100 correct", " correct", " instructions per inference", " B stack"]
            .map(|unit| number_before(summary, unit));
        assert_eq!(read, [Some(86), Some(100), Some(1_703_624), Some(4196)]);
        assert_eq!([number_before(summary, " differ;"), number_before(summary, " instructions per")], [None, read[2]]);
        assert_eq!(number_before("a correct", " correct"), None);
    }
}
