//! The IDX format of the MNIST files: a magic number, the dimensions, the bytes; gzipped or not.
//! Source: "THE MNIST DATABASE", section FILE FORMATS (Y. LeCun, C. Cortes, C. Burges).

use super::unpack;
use crate::error::{Error, Result};
use std::path::Path;

/// An array of bytes with its dimensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Array {
    /// The dimensions, outermost first; there are as many as the reader was asked for.
    pub(super) dimensions: Vec<usize>,
    /// The values, row-major.
    pub(super) values: Vec<u8>,
}

/// Reads an IDX file of bytes with `dimensions` dimensions: 3 for images, 1 for labels; gzipped or not.
///
/// # Errors
/// [`Error::Read`] if the file cannot be read, [`Error::Contents`] if it is not such an IDX file or has another length
/// than its header says.
pub(super) fn read(path: &Path, dimensions: usize) -> Result<Array> {
    parse(&unpack::read(path)?, dimensions).map_err(|problem| Error::contents(path, problem))
}

/// Bytes 0-1 are zero, byte 2 is the type (8 = unsigned byte), byte 3 the number of dimensions.
fn parse(bytes: &[u8], dimensions: usize) -> std::result::Result<Array, String> {
    let header = 4 + 4 * dimensions;
    if bytes.len() < header {
        return Err(format!("truncated: {} bytes, shorter than an IDX header of {header}", bytes.len()));
    }
    let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let expected = 0x0800 + dimensions as u32;
    if word(0) != expected {
        return Err(format!(
            "not an IDX file of {}: magic number {:#010x}, expected {expected:#010x}",
            if dimensions == 3 { "images" } else { "labels" },
            word(0)
        ));
    }
    let sizes: Vec<usize> = (0..dimensions).map(|i| word(4 + 4 * i) as usize).collect();
    let total = sizes.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    let found = bytes.len() - header;
    if total != Some(found) {
        let shape = sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" x ");
        let wrong = if total.is_none_or(|total| found < total) { "truncated" } else { "too long" };
        return Err(format!("{wrong}: {found} bytes after the header, which announces {shape}"));
    }
    Ok(Array { dimensions: sizes, values: bytes[header..].to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LABELS: [u8; 11] = [0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1];

    #[test]
    fn labels_are_read() {
        assert_eq!(parse(&LABELS, 1), Ok(Array { dimensions: vec![3], values: vec![7, 2, 1] }));
    }

    #[test]
    fn problems_say_what_was_found() {
        let problem = |bytes: &[u8], dimensions| parse(bytes, dimensions).unwrap_err();
        assert!(problem(&LABELS[..5], 1).contains("5 bytes"));
        assert!(problem(&LABELS[..10], 1).contains("truncated: 2 bytes after the header, which announces 3"));
        assert!(problem(&[&LABELS[..], &[0]].concat(), 1).contains("too long: 4 bytes"));
        assert!(problem(&[&LABELS[..], &[0; 9]].concat(), 3).contains("magic number 0x00000801, expected 0x00000803"));
        let huge = [0, 0, 8, 3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255];
        assert!(problem(&huge, 3).contains("announces 4294967295 x"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64), header in any::<bool>()) {
            let bytes = if header { [&[0, 0, 8, 1], &bytes[..]].concat() } else { bytes };
            if let Ok(array) = parse(&bytes, 1) {
                prop_assert_eq!(array.dimensions, vec![array.values.len()]);
            }
        }
    }
}
