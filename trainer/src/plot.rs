//! Pictures of a training and of a model's mistakes, as SVG.

use crate::evaluate::Evaluation;
use crate::train::Epoch;
use crate::tune::{Axis, Outcome};
use plotters::coord::Shift;
use plotters::prelude::*;

type Plotted = std::result::Result<(), Box<dyn std::error::Error>>;

const FONT: &str = "sans-serif";
const TRAIN: RGBColor = RGBColor(31, 119, 180);
const VALIDATION: RGBColor = RGBColor(44, 140, 70);
const TEST: RGBColor = RGBColor(214, 96, 39);

/// The course of a training: loss on the left (where the recipe logs one), accuracy on the right. `title` may be empty.
pub fn training(title: &str, history: &[Epoch]) -> String {
    let mut svg = String::new();
    draw(&mut svg, (960, 400), |area| {
        let charts = charts(history);
        let parts = area.split_evenly((1, charts.len().max(1)));
        charts.iter().zip(&parts).try_for_each(|(chart, part)| curves(part, &caption(title, chart.title), chart))
    });
    svg
}

/// The charts of [`training`] as pictures of their own, without its title.
pub fn course(history: &[Epoch]) -> Vec<String> {
    let picture = |chart: &Chart| {
        let mut svg = String::new();
        draw(&mut svg, (540, 380), |area| curves(area, chart.title, chart));
        svg
    };
    charts(history).iter().map(picture).collect()
}

fn caption(title: &str, what: &str) -> String {
    if title.is_empty() { what.to_owned() } else { format!("{title}: {what}") }
}

/// A number that an epoch may have.
type Measure = fn(&Epoch) -> Option<f64>;

/// One chart: the same measure of different images.
struct Chart {
    title: &'static str,
    lines: Vec<Line>,
    legend: SeriesLabelPosition,
}

/// Its points are epochs and values.
struct Line {
    name: &'static str,
    color: RGBColor,
    points: Vec<(f64, f64)>,
}

/// The charts that there are numbers for.
fn charts(history: &[Epoch]) -> Vec<Chart> {
    let losses: [Measure; 3] = [|row| row.train_loss, |row| row.validation_loss, |row| row.test_loss];
    let accuracies: [Measure; 3] = [
        |row| Some(100.0 * row.train_accuracy),
        |row| Some(100.0 * row.validation_accuracy?),
        |row| Some(100.0 * row.test_accuracy?),
    ];
    let chart = |title, measures: [Measure; 3], legend| {
        let styles = [("training", TRAIN), ("validation", VALIDATION), ("test", TEST)];
        let lines = styles.into_iter().zip(measures).map(|((name, color), measure)| {
            let points = history.iter().filter_map(|row| Some((f64::from(row.epoch), measure(row)?)));
            Line { name, color, points: points.collect() }
        });
        Chart { title, lines: lines.filter(|line| !line.points.is_empty()).collect(), legend }
    };
    // Losses fall and accuracies rise: there is room in these corners.
    let charts = [
        chart("loss", losses, SeriesLabelPosition::UpperRight),
        chart("accuracy, %", accuracies, SeriesLabelPosition::LowerRight),
    ];
    charts.into_iter().filter(|chart| !chart.lines.is_empty()).collect()
}

/// The outcomes of a search: one picture for each axis, with its values from left to right and the accuracies above them.
pub fn trials(title: &str, axes: &[Axis], outcomes: &[Outcome]) -> String {
    let mut svg = String::new();
    let columns = axes.len().clamp(1, 3);
    let rows = axes.len().div_ceil(columns).max(1);
    draw(&mut svg, (420 * columns as u32, 360 * rows as u32), |area| {
        for (number, (axis, area)) in axes.iter().zip(area.split_evenly((rows, columns))).enumerate() {
            trials_along(&area, &caption(title, &axis.key), number, outcomes)?;
        }
        Ok(())
    });
    svg
}

/// The accuracies over the values of axis number `number`: numbers in their order, by ratio if all are positive.
fn trials_along(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    title: &str,
    number: usize,
    outcomes: &[Outcome],
) -> Plotted {
    let mut names: Vec<&str> = outcomes.iter().map(|outcome| outcome.trial[number].as_str()).collect();
    let as_number = |name: &&str| name.parse::<f64>().unwrap_or(f64::NAN);
    names.sort_by(|a, b| as_number(a).total_cmp(&as_number(b)).then(a.cmp(b)));
    names.dedup();
    let best = outcomes.iter().map(|outcome| outcome.accuracy).fold(0.0, f64::max);
    // What went wrong altogether would press the others together.
    let shown = || outcomes.iter().filter(|outcome| outcome.accuracy >= best - 0.2);
    let worst = shown().map(|outcome| outcome.accuracy).fold(best, f64::min);
    let margin = (0.05 * (best - worst)).max(1e-3);
    let range = 100.0 * (worst - margin)..100.0 * (best + margin);
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(-0.5..names.len() as f64 - 0.5, range)?;
    let name = |place: &f64| match names.get(place.round() as usize) {
        Some(name) if (place - place.round()).abs() < 1e-6 && *place > -0.1 => name.chars().take(8).collect(),
        _ => String::new(),
    };
    chart.configure_mesh().x_labels(names.len().min(12)).x_label_formatter(&name).y_desc("validation, %").draw()?;
    let place = |outcome: &Outcome| names.iter().position(|name| *name == outcome.trial[number]).unwrap_or(0) as f64;
    chart.draw_series(shown().map(|o| Circle::new((place(o), 100.0 * o.accuracy), 4, VALIDATION.mix(0.6).filled())))?;
    Ok(())
}

/// The confusion matrix: a row per label, a column per answer.
pub fn confusion(title: &str, evaluation: &Evaluation, labels: &[&str]) -> String {
    let mut svg = String::new();
    let classes = evaluation.confusion.len() as i32;
    draw(&mut svg, (560, 600), |area| {
        let caption = format!("{title}: {:.2} % of {}", 100.0 * evaluation.accuracy, evaluation.images);
        let name = |class: &i32| labels.get(*class as usize).copied().unwrap_or_default().to_owned();
        let centred = |axis: &SegmentValue<i32>| match axis {
            SegmentValue::CenterOf(class) | SegmentValue::Exact(class) => name(class),
            SegmentValue::Last => String::new(),
        };
        let mut chart = ChartBuilder::on(area)
            .caption(caption, (FONT, 20))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(50)
            .build_cartesian_2d((0..classes - 1).into_segmented(), (0..classes - 1).into_segmented())?;
        chart
            .configure_mesh()
            .disable_mesh()
            .x_desc("answer")
            .y_desc("label, from the bottom up")
            .x_labels(classes as usize)
            .y_labels(classes as usize)
            .x_label_formatter(&centred)
            .y_label_formatter(&centred)
            .draw()?;
        let cells = || (0..classes).flat_map(|label| (0..classes).map(move |answer| (label, answer)));
        let count = |label: i32, answer: i32| evaluation.confusion[label as usize][answer as usize];
        chart.draw_series(cells().map(|(label, answer)| {
            let total: usize = evaluation.confusion[label as usize].iter().sum();
            let corners =
                [(answer, label), (answer + 1, label + 1)].map(|(x, y)| (exact(x, classes), exact(y, classes)));
            Rectangle::new(corners, shade(count(label, answer), total, label == answer).filled())
        }))?;
        let style = |dark: bool| {
            let color = if dark { WHITE } else { BLACK };
            let centre = plotters::style::text_anchor::Pos::new(
                plotters::style::text_anchor::HPos::Center,
                plotters::style::text_anchor::VPos::Center,
            );
            (FONT, 13).into_font().color(&color).pos(centre)
        };
        chart.draw_series(cells().filter(|&(label, answer)| count(label, answer) > 0).map(|(label, answer)| {
            let place = (SegmentValue::CenterOf(answer), SegmentValue::CenterOf(label));
            Text::new(count(label, answer).to_string(), place, style(label == answer))
        }))?;
        Ok(())
    });
    svg
}

/// The left or lower edge of a segment, or the end of the last one.
fn exact(edge: i32, count: i32) -> SegmentValue<i32> {
    if edge == count { SegmentValue::Last } else { SegmentValue::Exact(edge) }
}

/// Blue for right answers, orange for wrong ones, the stronger the more of the label's images they are. Mistakes are
/// rare, so theirs is a square-root scale.
fn shade(count: usize, total: usize, right: bool) -> RGBAColor {
    let share = count as f64 / total.max(1) as f64;
    if right { TRAIN.mix(share) } else { TEST.mix((4.0 * share.sqrt()).min(1.0)) }
}

fn draw(svg: &mut String, size: (u32, u32), picture: impl FnOnce(&DrawingArea<SVGBackend<'_>, Shift>) -> Plotted) {
    let area = SVGBackend::with_string(svg, size).into_drawing_area();
    let drawn = area.fill(&WHITE).map_err(Into::into).and_then(|()| picture(&area));
    drawn.and_then(|()| Ok(area.present()?)).expect("drawing into a string cannot fail");
}

/// The lines of a chart with their legend.
fn curves(area: &DrawingArea<SVGBackend<'_>, Shift>, title: &str, shown: &Chart) -> Plotted {
    let points = || shown.lines.iter().flat_map(|line| &line.points);
    let range = |along: fn(&(f64, f64)) -> f64| {
        let (low, high) = points().map(along).fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
        let margin = if high > low { 0.03 * (high - low) } else { 0.5 };
        low - margin..high + margin
    };
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(range(|p| p.0), range(|p| p.1))?;
    let whole = |epoch: &f64| if epoch.fract() == 0.0 { format!("{epoch:.0}") } else { String::new() };
    chart.configure_mesh().x_desc("epoch").x_label_formatter(&whole).light_line_style(WHITE).draw()?;
    for Line { name, color, points } in &shown.lines {
        let style = color.stroke_width(2);
        let series = LineSeries::new(points.iter().copied(), style);
        // A line of a single point could not be seen.
        let series = if points.len() == 1 { series.point_size(3) } else { series };
        chart.draw_series(series)?.label(*name).legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    let legend = shown.legend.clone();
    chart.configure_series_labels().position(legend).background_style(WHITE).border_style(BLACK.mix(0.3)).draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_training_is_drawn_with_and_without_losses() {
        let row = |epoch, loss| Epoch {
            epoch,
            train_loss: loss,
            train_accuracy: 0.5,
            test_loss: loss,
            test_accuracy: (epoch % 2 == 0).then_some(0.25),
            ..Epoch::default()
        };
        let with = training("digits", &[row(1, Some(2.0)), row(2, Some(1.0))]);
        assert!(with.contains("digits: loss") && with.contains("digits: accuracy"));
        let lines = |svg: &str| svg.matches("<polyline").count();
        assert!(lines(&with) > lines(&training("s0", &[row(0, None)])));
        assert!(!training("s0", &[row(0, None)]).contains("loss"));
        let validated = Epoch { validation_accuracy: Some(0.5), ..row(2, Some(1.0)) };
        let pictures = course(&[row(1, Some(2.0)), validated]);
        assert_eq!(pictures.iter().map(|svg| svg.contains("validation")).collect::<Vec<_>>(), [false, true]);
        assert!(course(&[]).is_empty());
    }

    #[test]
    fn a_confusion_matrix_shows_every_count() {
        let evaluation = Evaluation {
            accuracy: 0.75,
            loss: 0.5,
            images: 4321,
            correct: 3,
            per_class: vec![],
            confusion: vec![vec![1234, 17], vec![0, 56]],
        };
        let svg = confusion("tiny", &evaluation, &["zero", "one"]);
        for text in ["1234", "17", "56", "75.00 % of 4321", "zero", "one"] {
            assert!(svg.contains(text), "{text}");
        }
    }
}
