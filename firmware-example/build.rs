//! Gives each program the memory layout of the machine it is for, and `digits` its model and its test digits.
//!
//! For `digits` three variables say what to run on, with what; the table in `xtask/src/firmware.rs` sets them.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR for a build script"));
    let target = env::var("TARGET").expect("cargo sets TARGET for a build script");
    let board = if target.starts_with("thumbv6m") { "rp2040" } else { "stm32f411" };
    use_layout("digits", &setting("THUMBNET_MACHINE", "mps2-an386"), &out);
    use_layout("kernels", "mps2-an386", &out);
    use_layout("board", board, &out);
    // Whatever it was compiled for: an M4 runs the code of an M0, and has the flash for it.
    use_layout("count", "mps2-an386", &out);
    use_layout("device", "mps2-an386-4m", &out);
    println!("cargo::rustc-env=TIMER_CLOCK_HZ={}", setting("THUMBNET_CLOCK_HZ", "25000000"));
    use_model(&setting("THUMBNET_MODEL", "digits"), &out);
    // The linker script of cortex-m-rt or of riscv-rt; it includes the layout under the name `memory.x`.
    println!("cargo::rustc-link-arg-bins=-Tlink.x");
    // No page alignment between sections: flash has no pages to protect, and the padding would be paid for in bytes.
    println!("cargo::rustc-link-arg-bins=--nmagic");
}

fn setting(name: &str, default: &str) -> String {
    println!("cargo::rerun-if-env-changed={name}");
    env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn use_layout(program: &str, machine: &str, out: &Path) {
    let source = format!("memory/{machine}.x");
    let folder = out.join(machine);
    fs::create_dir_all(&folder).expect("the build folder is writable");
    copy(Path::new(&source), &folder.join("memory.x"));
    println!("cargo::rustc-link-arg-bin={program}=-L{}", folder.display());
}

/// Makes the model `model.tnet` and its test digits `digits.bin`, where they are: `board` does without them, so that their
/// absence is an error of `digits` alone.
fn use_model(name: &str, out: &Path) {
    let [shipped, made] = ["../models", "assets"].map(|folder| PathBuf::from(format!("{folder}/{name}.tnet")));
    let model = if shipped.exists() { shipped } else { made };
    let digits = PathBuf::from(format!("assets/{name}.bin"));
    println!("cargo::rustc-check-cfg=cfg(has_digits)");
    println!("cargo::rerun-if-changed={}", model.display());
    println!("cargo::rerun-if-changed={}", digits.display());
    if model.exists() && digits.exists() {
        copy(&model, &out.join("model.tnet"));
        copy(&digits, &out.join("digits.bin"));
        println!("cargo::rustc-cfg=has_digits");
    }
    // Made by `cargo xtask count`; see `src/bin/count.rs`.
    println!("cargo::rustc-check-cfg=cfg(has_workload)");
    println!("cargo::rerun-if-env-changed=THUMBNET_WORKLOAD");
    if let Ok(workload) = env::var("THUMBNET_WORKLOAD") {
        let model = format!("assets/{workload}.tnet");
        println!("cargo::rerun-if-changed={model}");
        if Path::new(&model).exists() {
            println!("cargo::rustc-cfg=has_workload");
        }
    }
}

fn copy(source: &Path, target: &Path) {
    println!("cargo::rerun-if-changed={}", source.display());
    fs::copy(source, target).unwrap_or_else(|error| panic!("{}: {error}", source.display()));
}
