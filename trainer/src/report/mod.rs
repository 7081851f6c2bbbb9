//! A page about a training and its model: one HTML file that needs nothing else.

mod kernels;
mod pictures;

use crate::evaluate::Evaluation;
use crate::mistakes::Mistake;
use crate::plot;
use crate::summary::{COLUMNS, Row, Summary, WORDS, dimensions_text, grouped};
use crate::train::Epoch;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use pictures::Tile;
use std::time::Duration;
use thumbnet::layer::Shape;
use thumbnet::{Input, Model};

/// How many mistakes are worth showing.
pub const MISTAKES: usize = 40;

/// Larger confusion matrices than this cannot be read.
const LARGEST_MATRIX: usize = 40;

/// What a report is about.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    /// The name of the run or of the model.
    pub title: &'a str,
    /// The recipe as it was followed, in TOML.
    pub recipe: Option<&'a str>,
    /// The epochs of the training; may be empty.
    pub history: &'a [Epoch],
    /// How long the training took.
    pub training_time: Option<Duration>,
    /// The model, or the members of an ensemble.
    pub models: &'a [Model<'a>],
    /// The size of the model's file.
    pub file_bytes: usize,
    /// The memory that one inference takes.
    pub scratch_bytes: usize,
    /// The names of the classes.
    pub classes: &'a [String],
    /// How the model does on the test set.
    pub evaluation: &'a Evaluation,
    /// The test set.
    pub examples: Examples<'a>,
    /// The mistakes to show: see [`mistakes::worst`](crate::mistakes::worst).
    pub mistakes: &'a [Mistake],
}

/// A data set's values.
#[derive(Clone, Copy, Debug)]
pub struct Examples<'a> {
    /// `[N, H, W, C]`; floats are best between 0 and 1, bytes between 0 and 255.
    pub values: Input<'a>,
    /// The shape of one example.
    pub shape: Shape,
}

impl Examples<'_> {
    fn tile(&self, index: usize) -> Option<Tile> {
        let len = self.shape.elements()? as usize;
        let range = index * len..(index + 1) * len;
        let values = match self.values {
            Input::F32(values) => values.get(range)?.to_vec(),
            Input::U8(bytes) => bytes.get(range)?.iter().map(|&byte| f32::from(byte) / 255.0).collect(),
        };
        Some(Tile { shape: self.shape, values })
    }
}

impl Report<'_> {
    /// The page.
    #[must_use]
    pub fn html(&self) -> String {
        let members: Vec<Summary> =
            self.models.iter().map(|model| Summary::new(model, self.classes, self.file_bytes)).collect();
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (self.title) }
                    style { (PreEscaped(include_str!("style.css"))) }
                }
                body {
                    main {
                        h1 { (self.title) }
                        (self.key_figures(&members))
                        (self.course())
                        (self.classes())
                        (self.mistakes())
                        (self.layers(&members))
                        (self.kernels())
                        (self.recipe())
                    }
                    footer { "thumbnet " (env!("CARGO_PKG_VERSION")) }
                }
            }
        };
        page.into_string()
    }

    fn key_figures(&self, members: &[Summary]) -> Markup {
        let Evaluation { accuracy, images, correct, .. } = *self.evaluation;
        let sum = |of: fn(&Summary) -> u64| members.iter().map(of).sum::<u64>();
        html! {
            dl.figures {
                (figure("test accuracy", &percent(accuracy), &format!("{} of {} wrong", grouped((images - correct) as u64), grouped(images as u64))))
                (figure("parameters", &grouped(sum(|member| member.parameters)), ""))
                (figure("file", &grouped(self.file_bytes as u64), "bytes"))
                (figure("memory for an inference", &grouped(self.scratch_bytes as u64), "bytes"))
                (figure("multiply-adds", &grouped(sum(|member| member.macs)), "per inference"))
                @if let Some(time) = self.training_time { (figure("training", &duration(time), &epochs(self.history.len()))) }
            }
        }
    }

    fn course(&self) -> Markup {
        html! {
            @if !self.history.is_empty() {
                section {
                    h2 { "Training" }
                    div.charts { @for svg in plot::course(self.history) { div { (PreEscaped(svg)) } } }
                }
            }
        }
    }

    fn classes(&self) -> Markup {
        html! {
            section {
                h2 { "Classes" }
                div.columns {
                    @if self.classes.len() <= LARGEST_MATRIX { (self.confusion()) }
                    (self.per_class())
                }
            }
        }
    }

    fn confusion(&self) -> Markup {
        let strength = |label: usize, answer: usize, count: usize, total: usize| {
            let share = count as f64 / total.max(1) as f64;
            // Mistakes are rare, so theirs is a square-root scale.
            if label == answer { share } else { (4.0 * share.sqrt()).min(1.0) }
        };
        // White letters can be read on strong blue only.
        let class = |right: bool, strength: f64| match right {
            true if strength > 0.6 => "right strong",
            true => "right",
            false => "wrong",
        };
        html! {
            div.scroll {
                table.confusion {
                    caption { "How many images of each label (rows) got which answer (columns)" }
                    thead {
                        tr {
                            th {}
                            @for class in self.classes { th scope="col" { (class) } }
                        }
                    }
                    tbody {
                        @for (label, row) in self.evaluation.confusion.iter().enumerate() {
                            tr {
                                th scope="row" { (self.class(label)) }
                                @for (answer, &count) in row.iter().enumerate() {
                                    @let strength = strength(label, answer, count, row.iter().sum());
                                    td class=(class(label == answer, strength))
                                        style={ "--strength:" (format!("{:.0}", 100.0 * strength)) "%" } {
                                        @if count > 0 { (count) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    fn per_class(&self) -> Markup {
        let taken_for = |label: usize, row: &[usize]| {
            let wrong = row.iter().enumerate().filter(|&(answer, &count)| answer != label && count > 0);
            // (The first of several: `max_by_key` would give the last.)
            wrong
                .rev()
                .max_by_key(|(_, count)| **count)
                .map(|(answer, count)| format!("{} ({count})", self.class(answer)))
        };
        html! {
            div.scroll {
                table {
                    caption { "Accuracy of each class" }
                    thead { tr { th { "class" } th.number { "images" } th.number { "accuracy" } th { "most often taken for" } } }
                    tbody {
                        @for (label, row) in self.evaluation.confusion.iter().enumerate() {
                            @let images: usize = row.iter().sum();
                            tr {
                                th scope="row" { (self.class(label)) }
                                td.number { (grouped(images as u64)) }
                                td.number { @if images > 0 { (percent(row[label] as f64 / images as f64)) } }
                                td { (taken_for(label, row).unwrap_or_default()) }
                            }
                        }
                    }
                }
            }
        }
    }

    fn mistakes(&self) -> Markup {
        let count = self.evaluation.images - self.evaluation.correct;
        html! {
            section {
                h2 { "Worst mistakes" }
                @if self.mistakes.is_empty() {
                    p { "None." }
                } @else {
                    p {
                        @if self.mistakes.len() < count {
                            "The " (self.mistakes.len()) " of " (grouped(count as u64)) " wrong answers that the model is most certain of."
                        } @else {
                            "Every wrong answer, the most certain ones first."
                        }
                    }
                    div.tiles {
                        @for mistake in self.mistakes {
                            figure {
                                @if let Some(tile) = self.examples.tile(mistake.image) { (tile.example()) }
                                figcaption {
                                    span.answer { (self.class(mistake.answer)) " " (percent(mistake.probability.into())) }
                                    span { "is " (self.class(mistake.label)) " " (percent(mistake.label_probability.into())) }
                                    span.faint { "image " (mistake.image) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    fn layers(&self, members: &[Summary]) -> Markup {
        let several = members.len() > 1;
        html! {
            section {
                h2 { "Network" }
                @for (index, summary) in members.iter().enumerate() {
                    div.scroll {
                        table {
                            caption {
                                @if several { "Member " (index + 1) ", input " } @else { "Input " }
                                (dimensions_text(summary.input))
                            }
                            thead { (cells("th", COLUMNS)) }
                            tbody { @for row in &summary.layers { (cells("td", Row::cells(row))) } }
                            tfoot {
                                (cells("th", ["sum", "", "", "", "", &grouped(summary.parameters), &grouped(summary.macs), &grouped(summary.weight_bytes)]))
                            }
                        }
                    }
                }
            }
        }
    }

    fn kernels(&self) -> Markup {
        let Some(kernels) = self.models.first().and_then(kernels::of_first_layer) else { return html! {} };
        html! {
            section {
                h2 { "Weights of the first layer" }
                p {
                    @if kernels.shown.len() < kernels.count { "The first " (kernels.shown.len()) " of " (grouped(kernels.count as u64)) ". " }
                    (kernels.legend())
                }
                div.tiles.kernels { @for tile in &kernels.shown { figure { (tile.weights()) } } }
            }
        }
    }

    fn recipe(&self) -> Markup {
        html! {
            @if let Some(recipe) = self.recipe {
                section {
                    h2 { "Recipe" }
                    pre { (recipe) }
                }
            }
        }
    }

    /// The name of a class, or its number.
    fn class(&self, class: usize) -> String {
        self.classes.get(class).cloned().unwrap_or_else(|| class.to_string())
    }
}

fn figure(name: &str, value: &str, note: &str) -> Markup {
    html! { div { dt { (name) } dd { strong { (value) } @if !note.is_empty() { " " span { (note) } } } } }
}

/// A row of the table of layers.
fn cells(tag: &str, cells: [impl AsRef<str>; COLUMNS.len()]) -> Markup {
    html! {
        tr {
            @for (column, cell) in cells.iter().map(AsRef::as_ref).enumerate() {
                @let class = (column >= WORDS).then_some("number");
                @if tag == "th" { th class=[class] { (cell) } } @else { td class=[class] { (cell) } }
            }
        }
    }
}

/// `97.85 %`; what is not quite all, or not quite nothing, is not rounded to it.
fn percent(share: f64) -> String {
    let hundredths = (10_000.0 * share).round();
    let hundredths = if share < 1.0 { hundredths.min(9_999.0) } else { hundredths };
    format!("{:.2} %", hundredths / 100.0)
}

fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, _) => format!("{:.1} s", time.as_secs_f64()),
        (0, minutes, seconds) => format!("{minutes} min {seconds:02} s"),
        (hours, minutes, _) => format!("{hours} h {minutes:02} min"),
    }
}

fn epochs(count: usize) -> String {
    match count {
        0 => String::new(),
        1 => "1 epoch".to_owned(),
        _ => format!("{count} epochs"),
    }
}

#[cfg(test)]
mod tests;
