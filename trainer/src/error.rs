//! What can go wrong, always with the file's name, what was found and what was expected.

use std::path::{Path, PathBuf};

/// Every failure of the trainer. The command line prints it and ends with exit code 2.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file that was to be written.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The data set, or one of its files, is missing.
    #[error("{}: no such {what}; expected a folder with the MNIST files ({}), gzipped (.gz) or not, or another data set; --data \
        names it", path.display(), crate::data::mnist::FILES.join(", "))]
    MissingData {
        /// The folder or file that was looked for.
        path: PathBuf,
        /// `"folder"`, `"file"` or `"file or folder"`.
        what: &'static str,
    },
    /// A file was read, but its contents are not what they should be.
    #[error("{}: {problem}", path.display())]
    Contents {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        problem: String,
    },
    /// A recipe that is neither built in nor a file.
    #[error("{name}: neither a file nor a built-in recipe ({known})")]
    UnknownRecipe {
        /// What the user asked for.
        name: String,
        /// The built-in names, comma separated.
        known: String,
    },
    /// A recipe that contradicts itself or its data.
    #[error("recipe {recipe}: {problem}")]
    Recipe {
        /// The recipe's name or file.
        recipe: String,
        /// The key, what it says and what it may say.
        problem: String,
    },
    /// The loss stopped being a number.
    #[error("recipe {recipe}: training diverged in epoch {epoch} (the loss is {loss}); a lower learning_rate may help")]
    Diverged {
        /// The recipe's name or file.
        recipe: String,
        /// The epoch, counted as the recipe counts.
        epoch: u32,
        /// The training loss: infinite or not a number.
        loss: f64,
    },
    /// A device could not be reached, or did not do what it was asked to.
    #[error("{port}: {problem}")]
    Device {
        /// The port as the user named it.
        port: String,
        /// What was asked, and what came of it.
        problem: String,
    },
    /// An option of the command line asks for something that does not exist.
    #[error("{0}")]
    Option(String),
}

impl Error {
    /// An [`Error::Contents`] about `path`.
    pub fn contents(path: &Path, problem: impl Into<String>) -> Self {
        Error::Contents { path: path.to_owned(), problem: problem.into() }
    }

    /// Wraps an error of the operating system about reading `path`; to be used with `map_err`.
    pub fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Error::Read { path: path.to_owned(), source }
    }

    /// Wraps an error of the operating system about writing `path`; to be used with `map_err`.
    pub fn write(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Error::Write { path: path.to_owned(), source }
    }
}

/// The trainer's results.
pub type Result<T> = std::result::Result<T, Error>;
