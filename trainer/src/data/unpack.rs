//! The contents of a file, unpacked if it is gzipped.

use crate::error::{Error, Result};
use std::io::Read as _;
use std::path::Path;

/// Reads a file. Gzipped ones are recognised by their first bytes, whatever their name.
///
/// # Errors
/// [`Error::Read`] if it cannot be read, [`Error::Contents`] if it is a damaged gzip file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).map_err(Error::read(path))?;
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(bytes);
    }
    let mut unpacked = Vec::new();
    flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut unpacked).map_err(|e| {
        Error::contents(path, format!("damaged or truncated gzip file ({e}) after {} unpacked bytes", unpacked.len()))
    })?;
    Ok(unpacked)
}

/// The first bytes of a file, or of what is in it if it is gzipped; fewer than eight if there are no more.
pub(super) fn start(path: &Path) -> Result<Vec<u8>> {
    let first = |reader: &mut dyn std::io::Read| {
        let mut bytes = Vec::new();
        // A damaged file is a matter of reading it.
        reader.take(8).read_to_end(&mut bytes).map(|_| bytes)
    };
    let open = || std::fs::File::open(path).map_err(Error::read(path));
    let bytes = first(&mut open()?).map_err(Error::read(path))?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(first(&mut flate2::read::MultiGzDecoder::new(open()?)).unwrap_or_default());
    }
    Ok(bytes)
}
