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
    println!("cargo::rustc-check-cfg=cfg(armv8m)");
    if target.starts_with("thumbv8m") {
        println!("cargo::rustc-cfg=armv8m");
    }
    println!("cargo::rustc-check-cfg=cfg(cortex_m_dsp)");
    println!("cargo::rustc-check-cfg=cfg(cortex_m_v6)");
    if has_dsp(&target) {
        println!("cargo::rustc-cfg=cortex_m_dsp");
    }
    if target.starts_with("thumbv6m") || target.starts_with("thumbv8m.base") {
        println!("cargo::rustc-cfg=cortex_m_v6");
    }
    println!("cargo::rustc-env=THUMBNET_BUILT_FOR={}", built_for(&target, &arch));
}

/// Whether the processor has the DSP extension: every Armv7E-M has it, of the Armv8-M main line those that are named to the
/// compiler with `-C target-cpu`.
fn has_dsp(target: &str) -> bool {
    const CPUS: [&str; 4] = ["cortex-m33", "cortex-m35p", "cortex-m55", "cortex-m85"];
    let flags = var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let cpu = flags
        .split('\x1f')
        .filter_map(|flag| flag.strip_prefix("-C").unwrap_or(flag).strip_prefix("target-cpu="))
        .next_back();
    target.starts_with("thumbv7em")
        || (target.starts_with("thumbv8m.main") && cpu.is_some_and(|cpu| CPUS.contains(&cpu)))
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
