//! `cargo xtask size`: what the program of each workload takes of the flash and of the RAM.

use crate::count;
use crate::workloads::{self, Workload};
use anyhow::{Context, Result};
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};
use rustc_demangle::demangle;
use std::collections::BTreeMap;

/// Prints the sizes of every workload's program.
pub(crate) fn run() -> Result<()> {
    let plugin = count::plugin()?;
    let mut report = String::new();
    for workload in workloads::ALL {
        let counts = count::count(workload, &plugin)?;
        report += &format!("\n{} {}\n", workload.core.name, workload.name());
        report += &flash(workload)?;
        let count::Counts { static_ram, stack, model, .. } = counts;
        report += &format!("  RAM: {static_ram} B static, {stack} B stack ({model} B of it the model)\n");
    }
    println!("{report}");
    Ok(())
}

/// The flash of a workload's program, by section, and the code by crate and module.
fn flash(workload: &Workload) -> Result<String> {
    let path = count::build(workload)?;
    let elf = std::fs::read(&path).with_context(|| path.display().to_string())?;
    let file = object::File::parse(&*elf)?;
    let size = |name| file.section_by_name(name).map_or(0, |section| section.size());
    let assets = workload.model()?.len() + workload.input().len();
    let mut text = format!(
        "  flash: {} B vectors, {} B code, {} B constants, {} B initial values, {assets} B model and input\n",
        size(".vector_table"),
        size(".text"),
        size(".rodata").saturating_sub(assets as u64),
        size(".data"),
    );
    let mut groups = BTreeMap::<String, u64>::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text) {
        *groups.entry(group(symbol.name()?)).or_default() += symbol.size();
    }
    let mut groups = groups.into_iter().filter(|(_, bytes)| *bytes > 0).collect::<Vec<_>>();
    groups.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    for (name, bytes) in groups {
        text += &format!("  {bytes:>8}  {name}\n");
    }
    Ok(text)
}

/// The crate and module that a function is from. What the compiler has inlined counts where it was inlined: loading, mostly,
/// into `count::main`.
fn group(symbol: &str) -> String {
    let name = format!("{:#}", demangle(symbol));
    let Some((path, _)) = name.rsplit_once("::") else { return "runtime".into() };
    // `<a::b::Type as c::Trait>::function` belongs to `a::b`.
    let path = path.trim_start_matches(['<', '&', '_']);
    let end = path.find([' ', '<', '>', '[']).unwrap_or(path.len());
    let parts = path[..end].split("::").take_while(|part| part.starts_with(char::is_lowercase)).collect::<Vec<_>>();
    match parts[..] {
        [] => "core".into(),
        ["thumbnet", module, ..] => format!("thumbnet::{module}"),
        [krate, ..] => krate.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_grouped_by_crate_and_module() {
        assert_eq!(group("_ZN8thumbnet7kernels7backend8cortex_m5dense17h306cd27314d1803dE"), "thumbnet::kernels");
        assert_eq!(
            group(
                "_ZN80_$LT$thumbnet..plan..Steps$u20$as$u20$core..iter..traits..iterator..Iterator$GT$4next17h2cdb5c4dd8cfe08fE"
            ),
            "thumbnet::plan"
        );
        assert_eq!(group("_ZN17compiler_builtins3mem6memcpy17h2cdb5c4dd8cfe08fE"), "compiler_builtins");
        assert_eq!(group("Reset"), "runtime");
    }
}
