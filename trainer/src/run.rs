//! The folder of a training: everything that it was and became.

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::recipe::Recipe;
use crate::train::Epoch;
use crate::{log, output};
use std::path::{Path, PathBuf};

/// The recipe as it was followed.
const RECIPE: &str = "recipe.toml";
/// One row per epoch.
const LOG: &str = "log.csv";
/// Where the training stands.
const CHECKPOINT: &str = "checkpoint";

/// A run folder.
#[derive(Clone, Debug)]
pub struct Run {
    path: PathBuf,
}

impl Run {
    /// A new folder at `path` with the recipe in it.
    ///
    /// # Errors
    /// [`Error::Write`]; also if there is such a folder already.
    pub fn create(path: &Path, recipe: &Recipe) -> Result<Self> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(Error::write(parent))?;
        }
        std::fs::create_dir(path).map_err(Error::write(path))?;
        let run = Run { path: path.to_owned() };
        output::replace(&run.path.join(RECIPE), recipe.to_toml().as_bytes())?;
        Ok(run)
    }

    /// `parent/name` as a new folder, or `name-2` and so on if there are runs of that name.
    ///
    /// # Errors
    /// As [`Run::create`].
    pub fn create_numbered(parent: &Path, name: &str, recipe: &Recipe) -> Result<Self> {
        let mut path = parent.join(name);
        for number in 2.. {
            if !path.exists() {
                break;
            }
            path = parent.join(format!("{name}-{number}"));
        }
        Self::create(&path, recipe)
    }

    /// The folder of a training that was begun, with its recipe and where it stands; `None` if not even its first epoch was
    /// complete.
    ///
    /// # Errors
    /// [`Error::Read`] or [`Error::Contents`] if it is not such a folder.
    pub fn open(path: &Path) -> Result<(Self, Recipe, Option<Checkpoint>)> {
        let run = Run { path: path.to_owned() };
        let file = run.path.join(RECIPE);
        let text = std::fs::read_to_string(&file).map_err(Error::read(&file))?;
        let recipe = Recipe::parse(&file.display().to_string(), &text)?;
        let file = run.path.join(CHECKPOINT);
        let checkpoint = if file.exists() { Some(Checkpoint::read(&file)?) } else { None };
        Ok((run, recipe, checkpoint))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file of the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The file of the checkpoint.
    pub fn checkpoint(&self) -> PathBuf {
        self.file(CHECKPOINT)
    }

    /// Keeps where a training stands after an epoch.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn keep(&self, checkpoint: &Checkpoint) -> Result<()> {
        self.log(checkpoint.history())?;
        checkpoint.write(&self.checkpoint())
    }

    /// Writes the log.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn log(&self, history: &[Epoch]) -> Result<()> {
        output::replace(&self.file(LOG), log::csv(history).as_bytes())
    }
}
