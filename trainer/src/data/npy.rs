//! One numpy array in the `.npy` format, versions 1 to 3.
//! Source: numpy's documentation, "numpy.lib.format".
//!
//! (By hand, since the crates for it believe the shape in the header: a damaged one has them overflow or run out of memory.)

use super::Values;

/// An array of numbers.
#[derive(Debug, PartialEq)]
pub(super) struct Array {
    /// The dimensions, outermost first.
    pub(super) shape: Vec<usize>,
    /// The values, row-major.
    pub(super) values: Values,
}

/// Reads an array of numbers or truth values.
pub(super) fn parse(bytes: &[u8]) -> Result<Array, String> {
    let (header, data) = header(bytes)?;
    let kind = text_value(header, "descr")?;
    if value(header, "fortran_order")?.starts_with("True") {
        return Err("stored in Fortran order, expected C order: np.ascontiguousarray makes it so".to_owned());
    }
    let shape = shape(value(header, "shape")?)?;
    let size = item_size(kind)?;
    let expected = shape.iter().try_fold(size, |product, &size| product.checked_mul(size));
    if expected != Some(data.len()) {
        return Err(format!("{} bytes of data, but the header announces {shape:?} of {kind}", data.len()));
    }
    Ok(Array { shape, values: values(kind, data).ok_or_else(|| unknown(kind))? })
}

/// The header's text and the data behind it.
fn header(bytes: &[u8]) -> Result<(&str, &[u8]), String> {
    let (length, rest) = match bytes {
        [0x93, b'N', b'U', b'M', b'P', b'Y', 1, _, a, b, rest @ ..] => {
            (usize::from(u16::from_le_bytes([*a, *b])), rest)
        }
        [0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, _, a, b, c, d, rest @ ..] => {
            (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest)
        }
        _ => return Err("not a numpy array".to_owned()),
    };
    let (header, data) = rest.split_at_checked(length).ok_or("truncated in the header")?;
    Ok((std::str::from_utf8(header).map_err(|_| "damaged header")?, data))
}

/// What stands behind `'key':` in the header, a Python dictionary.
fn value<'h>(header: &'h str, key: &str) -> Result<&'h str, String> {
    let found = [format!("'{key}':"), format!("\"{key}\":")].iter().find_map(|key| Some(header.split_once(key)?.1));
    found.map(str::trim_start).ok_or_else(|| format!("damaged header: no {key}"))
}

/// A value in quotes.
fn text_value<'h>(header: &'h str, key: &str) -> Result<&'h str, String> {
    let text = value(header, key)?;
    let quoted = text.strip_prefix(['\'', '"']).and_then(|rest| Some(rest.split_once(['\'', '"'])?.0));
    quoted.ok_or_else(|| "an array of records, expected numbers".to_owned())
}

/// A tuple of numbers: `()`, `(3,)`, `(3, 4)`.
fn shape(text: &str) -> Result<Vec<usize>, String> {
    let inside = text.strip_prefix('(').and_then(|rest| Some(rest.split_once(')')?.0));
    let inside = inside.ok_or("damaged header: the shape is not a tuple")?;
    let sizes = inside.split(',').map(str::trim).filter(|size| !size.is_empty());
    sizes.map(|size| size.parse().map_err(|_| format!("damaged header: a dimension of {size:?}"))).collect()
}

fn unknown(kind: &str) -> String {
    format!("values of type {kind:?}, expected integers, floating-point numbers or truth values")
}

/// The bytes of one value.
fn item_size(kind: &str) -> Result<usize, String> {
    match kind.get(1..) {
        Some("b1" | "i1" | "u1") => Ok(1),
        Some("i2" | "u2" | "f2") => Ok(2),
        Some("i4" | "u4" | "f4") => Ok(4),
        Some("i8" | "u8" | "f8") => Ok(8),
        _ => Err(unknown(kind)),
    }
}

/// `kind` is the byte order, the sort of number and its size: `<f4`.
fn values(kind: &str, data: &[u8]) -> Option<Values> {
    let big = kind.starts_with('>');
    /// The numbers of `N` bytes each in `data`.
    fn numbers<const N: usize>(data: &[u8], big: bool, number: impl Fn([u8; N]) -> f32) -> Option<Values> {
        let (chunks, _) = data.as_chunks::<N>();
        let native = |mut bytes: [u8; N]| {
            if big {
                bytes.reverse();
            }
            bytes
        };
        Some(Values::Floats(chunks.iter().map(|&bytes| number(native(bytes))).collect()))
    }
    match kind.get(1..)? {
        "b1" | "u1" => Some(Values::Bytes(data.to_vec())),
        "i1" => numbers(data, big, |[byte]| f32::from(byte as i8)),
        "i2" => numbers(data, big, |bytes| f32::from(i16::from_le_bytes(bytes))),
        "u2" => numbers(data, big, |bytes| f32::from(u16::from_le_bytes(bytes))),
        "f2" => numbers(data, big, |bytes| half::f16::from_le_bytes(bytes).to_f32()),
        "i4" => numbers(data, big, |bytes| i32::from_le_bytes(bytes) as f32),
        "u4" => numbers(data, big, |bytes| u32::from_le_bytes(bytes) as f32),
        "f4" => numbers(data, big, f32::from_le_bytes),
        "i8" => numbers(data, big, |bytes| i64::from_le_bytes(bytes) as f32),
        "u8" => numbers(data, big, |bytes| u64::from_le_bytes(bytes) as f32),
        "f8" => numbers(data, big, |bytes| f64::from_le_bytes(bytes) as f32),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(version: u8, header: &str, data: &[u8]) -> Vec<u8> {
        let length = (header.len() as u32).to_le_bytes();
        let length = if version == 1 { &length[..2] } else { &length[..] };
        [b"\x93NUMPY", &[version, 0][..], length, header.as_bytes(), data].concat()
    }

    const HEADER: &str = "{'descr': '<i2', 'fortran_order': False, 'shape': (2, 1), }\n";

    #[test]
    fn every_version_of_the_format_is_read() {
        for version in 1..=3 {
            let array = parse(&file(version, HEADER, &[1, 0, 255, 255]));
            assert_eq!(array, Ok(Array { shape: vec![2, 1], values: Values::Floats(vec![1.0, -1.0]) }));
        }
        let scalar = parse(&file(1, "{\"descr\": \"|b1\", \"fortran_order\": False, \"shape\": ()}", &[1]));
        assert_eq!(scalar, Ok(Array { shape: vec![], values: Values::Bytes(vec![1]) }));
        assert!(parse(&file(4, HEADER, &[0; 4])).is_err());
    }

    #[test]
    fn any_damage_to_the_header_is_survived() {
        let whole = file(1, HEADER, &[1, 0, 2, 0]);
        for length in 0..whole.len() {
            assert!(parse(&whole[..length]).is_err());
        }
        for index in 0..whole.len() {
            for byte in 0..=255 {
                let mut bytes = whole.clone();
                bytes[index] = byte;
                if let Ok(array) = parse(&bytes) {
                    assert_eq!(array.values.len(), array.shape.iter().product::<usize>());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_refused(kind in ".{0,4}", shape in "[(),0-9 -]{0,20}", data in prop::collection::vec(any::<u8>(), 0..9)) {
            let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}");
            if let Ok(array) = parse(&file(2, &header, &data)) {
                prop_assert_eq!(array.values.len(), array.shape.iter().product::<usize>());
            }
        }
    }
}
