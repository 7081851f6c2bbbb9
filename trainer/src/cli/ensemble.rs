//! `thumbnet ensemble`.

use super::{ModelFile, grouped, print, together};
use std::path::PathBuf;
use thumbnet::{AlignedBuf, ensemble};
use thumbnet_trainer::error::Result;
use thumbnet_trainer::output;

/// Put several models into one file that averages what they say.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The model files; of an ensemble, all members are taken
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<PathBuf>,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let files = args.models.iter().map(|path| ModelFile::read(path)).collect::<Result<Vec<_>>>()?;
    let whole = together(&files)?;
    let members = files.iter().map(ModelFile::member_files).collect::<Result<Vec<_>>>()?.concat();
    let too_large = || files[0].error("the ensemble would have 4 GiB or more");
    let mut file = AlignedBuf::zeroed(ensemble::encoded_len(&members).ok_or_else(too_large)?);
    ensemble::encode(&members, &mut file).map_err(|e| files[0].error(e.to_string()))?;
    output::replace(&args.out, &file)?;
    let (count, bytes) = (whole.members().len(), grouped(file.len() as u64));
    print(&format!("{}: {count} models, {bytes} bytes\n", args.out.display()))
}
