//! Search for the values of a recipe's keys with which the network does best on the images kept apart.

use crate::error::{Error, Result};
use crate::random::RandomState;
use crate::recipe::Recipe;
use std::path::Path;
use toml::{Table, Value};

/// The part of the training images that is kept apart for a recipe that keeps none.
pub const VALIDATION: f64 = 0.1;

/// A key of a recipe, and the values that it may have.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// The key as a path, such as `learning_rate`, `optimizer.momentum` or `layers.0.filters` (layers are counted from 0).
    /// `hidden` stands for the outputs of every dense layer but the last.
    pub key: String,
    /// Its values.
    pub values: Values,
}

/// The values of an [`Axis`].
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// These.
    List(Vec<Value>),
    /// Any number of a range, as likely to be in one tenth part of it as in another; by ratio if both ends are positive, as suits
    /// learning rates.
    Range(f64, f64),
}

impl std::str::FromStr for Axis {
    type Err = String;

    /// Reads `key=1,2,3` or `key=0.001..0.1`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let expected = || format!("{text:?}: expected key=value,value,... or key=from..to");
        let (key, values) = text.split_once('=').ok_or_else(expected)?;
        if key.is_empty() || values.is_empty() {
            return Err(expected());
        }
        let values = match values.split_once("..") {
            Some((from, to)) => match (from.parse::<f64>(), to.parse::<f64>()) {
                (Ok(from), Ok(to)) if from < to && from.is_finite() && to.is_finite() => Values::Range(from, to),
                _ => return Err(format!("{text:?}: expected two numbers around .., the smaller one first")),
            },
            None => Values::List(values.split(',').map(value).collect()),
        };
        Ok(Axis { key: key.to_owned(), values })
    }
}

/// A value of a recipe: what TOML takes it for, otherwise the text itself, so that strings need no quotes.
fn value(text: &str) -> Value {
    let table: std::result::Result<Table, _> = toml::from_str(&format!("value = {text}"));
    table.ok().and_then(|mut table| table.remove("value")).unwrap_or_else(|| Value::String(text.to_owned()))
}

/// One combination of values, in the order of the axes.
pub type Trial = Vec<Value>;

/// Every combination of the values of `axes`.
///
/// # Errors
/// A message if one of them is a range.
pub fn grid(axes: &[Axis]) -> std::result::Result<Vec<Trial>, String> {
    let mut trials = vec![Vec::new()];
    for axis in axes {
        let Values::List(values) = &axis.values else {
            return Err(format!("{}: a range has no end of values: list some, or search with --random", axis.key));
        };
        let longer = |trial: &Trial, value: &Value| trial.iter().chain([value]).cloned().collect();
        trials = trials.iter().flat_map(|trial| values.iter().map(move |value| longer(trial, value))).collect();
    }
    Ok(trials)
}

/// `count` combinations drawn at random from `seed`. Source: Bergstra and Bengio, "Random Search for Hyper-Parameter Optimization"
/// (2012).
#[must_use]
pub fn random(axes: &[Axis], count: usize, seed: u32) -> Vec<Trial> {
    let mut rng = RandomState::new(seed);
    let mut draw = |axis: &Axis| match &axis.values {
        Values::List(values) => values[(rng.random_sample() * values.len() as f64) as usize].clone(),
        Values::Range(from, to) if *from > 0.0 => Value::Float(from * (to / from).powf(rng.random_sample())),
        Values::Range(from, to) => Value::Float(from + (to - from) * rng.random_sample()),
    };
    (0..count).map(|_| axes.iter().map(&mut draw).collect()).collect()
}

/// `recipe` with the values of a trial, and with images kept apart.
///
/// # Errors
/// [`Error::Option`] for a key that is not in the recipe, otherwise what the changed recipe is refused for.
pub fn apply(recipe: &Recipe, axes: &[Axis], trial: &Trial) -> Result<Recipe> {
    let mut table: Table = toml::from_str(&recipe.to_toml()).expect("a recipe that was written can be read");
    for (axis, value) in axes.iter().zip(trial) {
        set(&mut table, &axis.key, value)?;
    }
    let text = toml::to_string(&table).expect("a changed recipe can be written");
    let mut changed = Recipe::parse(&recipe.name, &text)?;
    if changed.validation == 0.0 {
        changed.validation = VALIDATION;
    }
    Ok(changed)
}

fn set(table: &mut Table, key: &str, value: &Value) -> Result<()> {
    if key == "hidden" {
        return set_hidden(table, value);
    }
    let (first, rest) = key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
    let set = match rest {
        None => replace(table, first, value),
        Some(rest) => table.get_mut(first).and_then(|inner| set_within(inner, rest, value)),
    };
    set.ok_or_else(|| Error::Option(format!("{key}: the recipe has no such key")))
}

/// Sets the key of a table, or of one of an array of tables; `None` if there is no such place.
fn set_within(place: &mut Value, key: &str, value: &Value) -> Option<()> {
    let (first, rest) = key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
    match (place, rest) {
        (Value::Table(table), None) => replace(table, first, value),
        (Value::Table(table), Some(rest)) => set_within(table.get_mut(first)?, rest, value),
        (Value::Array(array), Some(rest)) => set_within(array.get_mut(first.parse::<usize>().ok()?)?, rest, value),
        _ => None,
    }
}

/// Keys that are not there may have defaults: only the recipe's reader knows.
fn replace(table: &mut Table, key: &str, value: &Value) -> Option<()> {
    // A number with a decimal point may be written without one.
    let float = table.get(key).is_some_and(Value::is_float);
    let value = match value {
        Value::Integer(number) if float => Value::Float(*number as f64),
        other => other.clone(),
    };
    table.insert(key.to_owned(), value);
    Some(())
}

fn set_hidden(table: &mut Table, value: &Value) -> Result<()> {
    let layers = table.get_mut("layers").and_then(Value::as_array_mut).expect("a recipe has layers");
    let is_dense = |layer: &&mut Value| layer.get("type").and_then(Value::as_str) == Some("dense");
    let mut dense: Vec<&mut Table> = layers.iter_mut().filter(is_dense).filter_map(Value::as_table_mut).collect();
    dense.pop();
    if dense.is_empty() {
        return Err(Error::Option("hidden: the recipe has no dense layer but the last".to_owned()));
    }
    for layer in dense {
        layer.insert("outputs".to_owned(), value.clone());
    }
    Ok(())
}

/// What came of a trial.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The values.
    pub trial: Vec<String>,
    /// The share of correct answers over the images kept apart, after the last epoch; 0 if the training diverged.
    pub accuracy: f64,
    /// The mean loss over them; infinite if the training diverged.
    pub loss: f64,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// The texts of a trial's values.
#[must_use]
pub fn texts(trial: &Trial) -> Vec<String> {
    trial.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect()
}

const RESULTS: [&str; 3] = ["val_acc", "val_loss", "seconds"];

/// The outcomes as CSV: a column for each axis, then the results.
#[must_use]
pub fn csv(axes: &[Axis], outcomes: &[Outcome]) -> String {
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    let keys = axes.iter().map(|axis| axis.key.as_str()).chain(RESULTS);
    writer.write_record(keys).expect("a vector takes all");
    for Outcome { trial, accuracy, loss, seconds } in outcomes {
        let results = [accuracy.to_string(), loss.to_string(), format!("{seconds:.1}")];
        writer.write_record(trial.iter().chain(&results)).expect("a vector takes all");
    }
    String::from_utf8(writer.into_inner().expect("a vector takes all")).expect("text in, text out")
}

/// Reads what [`csv()`] wrote for the same axes.
///
/// # Errors
/// [`Error::Contents`] if it is of other axes, or damaged.
pub fn parse_csv(path: &Path, text: &str, axes: &[Axis]) -> Result<Vec<Outcome>> {
    let refused = |problem: String| Error::contents(path, problem);
    let mut reader = ::csv::Reader::from_reader(text.as_bytes());
    let expected: Vec<&str> = axes.iter().map(|axis| axis.key.as_str()).chain(RESULTS).collect();
    let found = reader.headers().map_err(|e| refused(e.to_string()))?;
    if found.iter().collect::<Vec<_>>() != expected {
        let found = found.iter().collect::<Vec<_>>().join(",");
        return Err(refused(format!("has the columns {found}, expected {}: another search", expected.join(","))));
    }
    let number = |text: &str| text.parse().map_err(|_| refused(format!("{text:?} where a number is expected")));
    let outcome = |row: ::csv::StringRecord| {
        let (trial, results) = (row.iter().take(axes.len()), axes.len());
        Ok(Outcome {
            trial: trial.map(str::to_owned).collect(),
            accuracy: number(&row[results])?,
            loss: number(&row[results + 1])?,
            seconds: number(&row[results + 2])?,
        })
    };
    reader.records().map(|row| outcome(row.map_err(|e| refused(e.to_string()))?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axes(texts: &[&str]) -> Vec<Axis> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_grid_has_every_combination() {
        let axes = axes(&["learning_rate=0.1,1", "schedule=cosine,constant"]);
        let trials: Vec<String> = grid(&axes).unwrap().iter().map(|trial| texts(trial).join(" ")).collect();
        assert_eq!(trials, ["0.1 cosine", "0.1 constant", "1 cosine", "1 constant"]);
        assert!(grid(&[Axis { key: "x".to_owned(), values: Values::Range(0.0, 1.0) }]).unwrap_err().contains("range"));
    }

    #[test]
    fn random_trials_stay_within_their_values_and_are_the_same_again() {
        let axes = axes(&["learning_rate=0.001..0.1", "hidden=16,32"]);
        let trials = random(&axes, 200, 3);
        assert_eq!(trials, random(&axes, 200, 3));
        let rates: Vec<f64> = trials.iter().map(|trial| trial[0].as_float().unwrap()).collect();
        assert!(rates.iter().all(|rate| (0.001..=0.1).contains(rate)));
        let below = rates.iter().filter(|&&rate| rate < 0.01).count();
        assert!((70..130).contains(&below), "half of them by ratio: {below}");
        assert!([16, 32].iter().all(|n| trials.iter().any(|trial| trial[1].as_integer() == Some(*n))));
    }

    #[test]
    fn values_take_their_place_in_the_recipe() {
        let recipe = Recipe::find("digits").unwrap();
        let axes = axes(&["learning_rate=1", "hidden=20", "optimizer.momentum=0.5", "layers.0.activation=tanh"]);
        let changed = apply(&recipe, &axes, &grid(&axes).unwrap()[0]).unwrap();
        assert_eq!((changed.learning_rate, changed.validation), (1.0, VALIDATION));
        let text = changed.to_toml();
        assert_eq!(text.matches("outputs = 20").count(), 2);
        assert!(text.contains("momentum = 0.5") && text.contains("tanh"), "{text}");
    }

    #[test]
    fn mistakes_are_named() {
        let recipe = Recipe::find("digits").unwrap();
        let refused = |text: &str| {
            let axes = axes(&[text]);
            apply(&recipe, &axes, &grid(&axes).unwrap()[0]).unwrap_err().to_string()
        };
        assert!(refused("layers.9.outputs=5").contains("layers.9.outputs"));
        assert!(refused("speed=5").contains("speed"));
        assert!(refused("learning_rate=-1").contains("learning_rate"));
        for text in ["rate", "rate=", "=1", "rate=2..1", "rate=a..b"] {
            assert!(text.parse::<Axis>().unwrap_err().contains(text));
        }
    }

    #[test]
    fn outcomes_are_read_again() {
        let axes = axes(&["learning_rate=0.1,1", "schedule=cosine"]);
        let outcome = |rate: &str, accuracy| Outcome {
            trial: vec![rate.to_owned(), "{ step = { every = 2, factor = 0.1 } }".to_owned()],
            accuracy,
            loss: 0.25,
            seconds: 1.5,
        };
        let outcomes = [outcome("0.1", 0.5), outcome("1.0", 0.75)];
        let text = csv(&axes, &outcomes);
        let path = Path::new("trials.csv");
        assert_eq!(parse_csv(path, &text, &axes).unwrap(), outcomes);
        let error = parse_csv(path, &text, &axes[..1]).unwrap_err().to_string();
        assert!(error.contains("trials.csv") && error.contains("another search"), "{error}");
        assert!(parse_csv(path, &text.replace("0.25", "x"), &axes).is_err());
    }
}
