//! Gives each program the memory layout of the machine it is for, and looks whether the test digits are there.

use std::path::Path;
use std::{env, fs};

fn main() {
    // Made by `cargo xtask firmware`, one for each model that `digits` can run; see `src/digits_file.rs`.
    let digits = if env::var_os("CARGO_FEATURE_CNN").is_some() { "assets/s1-fixed.bin" } else { "assets/digits.bin" };
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR for a build script");
    let target = env::var("TARGET").expect("cargo sets TARGET for a build script");
    let board = if target.starts_with("thumbv6m") { "rp2040" } else { "stm32f411" };
    use_layout("digits", "mps2-an386", &out);
    use_layout("kernels", "mps2-an386", &out);
    use_layout("board", board, &out);
    // Whatever it was compiled for: an M4 runs the code of an M0, and has the flash for it.
    use_layout("count", "mps2-an386", &out);
    // cortex-m-rt's linker script; it includes the layout under the name `memory.x`.
    println!("cargo::rustc-link-arg-bins=-Tlink.x");
    // No page alignment between sections: flash has no pages to protect, and the padding would be paid for in bytes.
    println!("cargo::rustc-link-arg-bins=--nmagic");
    // `board` does without the digits, so that their absence is an error of `digits` alone.
    println!("cargo::rustc-check-cfg=cfg(has_digits)");
    println!("cargo::rerun-if-changed={digits}");
    if Path::new(digits).exists() {
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

fn use_layout(program: &str, machine: &str, out: &str) {
    let source = format!("memory/{machine}.x");
    let folder = Path::new(out).join(machine);
    fs::create_dir_all(&folder).expect("the build folder is writable");
    fs::copy(&source, folder.join("memory.x")).unwrap_or_else(|error| panic!("{source}: {error}"));
    println!("cargo::rerun-if-changed={source}");
    println!("cargo::rustc-link-arg-bin={program}=-L{}", folder.display());
}
