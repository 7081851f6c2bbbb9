//! Decides from the target which kernels are built.
//!
//! A stable rustc sets no `cfg` for the FPU or the DSP extension of a Cortex-M, so the target's name has to do.

use std::env::var;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(wide_backend)");
    println!("cargo::rustc-check-cfg=cfg(cortex_m_fpu)");
    let target = var("TARGET").unwrap_or_default();
    let arch = var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    // The same list stands in Cargo.toml, where `wide` is a dependency.
    if ["x86_64", "x86", "aarch64", "wasm32"].contains(&arch.as_str()) {
        println!("cargo::rustc-cfg=wide_backend");
    }
    if target.starts_with("thumb") && target.ends_with("eabihf") {
        println!("cargo::rustc-cfg=cortex_m_fpu");
    }
    println!("cargo::rustc-env=THUMBNET_BUILT_FOR={}", built_for(&target, &arch));
}

/// What the kernels were built for, in words.
fn built_for<'a>(target: &str, arch: &'a str) -> &'a str {
    const CORES: [(&str, &str); 7] = [
        ("thumbv6m", "Cortex-M0/M0+ (scalar kernels, soft float)"),
        ("thumbv7m", "Cortex-M3 (scalar kernels, soft float)"),
        ("thumbv7em-none-eabihf", "Cortex-M4F/M7 (assembly for the FPU)"),
        ("thumbv7em", "Cortex-M4/M7 (scalar kernels, soft float)"),
        ("thumbv8m.base", "Cortex-M23 (scalar kernels, soft float)"),
        ("thumbv8m.main-none-eabihf", "Cortex-M33/M55 (assembly for the FPU)"),
        ("thumbv8m.main", "Cortex-M33 (scalar kernels, soft float)"),
    ];
    CORES.iter().find(|(prefix, _)| target.starts_with(prefix)).map_or(arch, |(_, words)| words)
}
