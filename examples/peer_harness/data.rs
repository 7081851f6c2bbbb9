//! What the harness writes: `manifest.tsv` (the shape of each tensor), `NAME.f32` (little-endian, row-major, no header),
//! `model.tsv` (a layer per line) and `gemm.tsv` (a matrix product per line).

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A matrix product: `C[m, n] = A[m, k] · B[k, n]`.
pub(crate) struct Shape {
    pub(crate) name: String,
    pub(crate) m: usize,
    pub(crate) k: usize,
    pub(crate) n: usize,
}

/// The networks and tensors of a folder.
pub(crate) struct Data {
    folder: PathBuf,
    /// Per tensor: its name and its number of values.
    manifest: Vec<(String, usize)>,
    /// Per layer: the network's name, the kind of layer, its sizes.
    layers: Vec<Vec<String>>,
}

impl Data {
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let manifest = table(&folder.join("manifest.tsv"), 2)?.into_iter().map(|row| {
            let sizes = row[1].split('x').map(str::parse).collect::<std::result::Result<Vec<usize>, _>>();
            let values =
                sizes.map_err(|_| format!("manifest.tsv: {}: found the shape {:?}, expected AxB", row[0], row[1]))?;
            Ok((row[0].clone(), values.iter().product()))
        });
        let (manifest, layers) = (manifest.collect::<Result<_>>()?, table(&folder.join("model.tsv"), 2)?);
        Ok(Self { folder: folder.to_owned(), manifest, layers })
    }

    /// The names of the networks, in the file's order.
    pub(crate) fn networks(&self) -> Result<Vec<String>> {
        let mut names: Vec<String> = self.layers.iter().map(|row| row[0].clone()).collect();
        names.dedup();
        if names.is_empty() { Err("model.tsv: no networks")? } else { Ok(names) }
    }

    /// The layers of a network: the kind, then the sizes.
    pub(crate) fn layers(&self, network: &str) -> impl Iterator<Item = &[String]> {
        self.layers.iter().filter(move |row| row[0] == network).map(|row| &row[1..])
    }

    /// The values of a tensor.
    pub(crate) fn tensor(&self, name: &str) -> Result<Vec<f32>> {
        let path = self.folder.join(format!("{name}.f32"));
        let expected = self.manifest.iter().find(|(known, _)| known == name);
        let (_, expected) = expected.ok_or_else(|| format!("manifest.tsv: no tensor {name}"))?;
        let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let (values, rest) = bytes.as_chunks::<4>();
        if values.len() != *expected || !rest.is_empty() {
            Err(format!("{}: found {} bytes, expected {expected} values of 4", path.display(), bytes.len()))?;
        }
        Ok(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }
}

/// The matrix products of a folder.
pub(crate) fn shapes(folder: &Path) -> Result<Vec<Shape>> {
    let shape =
        |row: Vec<String>| Ok(Shape { m: size(&row, 1)?, k: size(&row, 2)?, n: size(&row, 3)?, name: row[0].clone() });
    table(&folder.join("gemm.tsv"), 4)?.into_iter().map(shape).collect()
}

/// The number in a column of a table's row.
pub(crate) fn size(row: &[String], column: usize) -> Result<usize> {
    let found = row.get(column).ok_or_else(|| format!("{}: a size is missing", row.join(" ")))?;
    Ok(found.parse().map_err(|_| format!("{}: found {found:?}, expected a size", row.join(" ")))?)
}

/// The first values of a tensor.
pub(crate) fn first<'a>(values: &'a [f32], count: usize, name: &str) -> Result<&'a [f32]> {
    Ok(values.get(..count).ok_or_else(|| format!("{name}: found {} values, expected {count} or more", values.len()))?)
}

/// An operand of a matrix product, by the harness's formula.
pub(crate) fn operand(len: usize, salt: usize) -> Vec<f32> {
    (0..len).map(|index| (((index * 7919 + salt) % 1009) as f64 / 1009.0 - 0.5) as f32).collect()
}

fn table(path: &Path, columns: usize) -> Result<Vec<Vec<String>>> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let rows: Vec<Vec<String>> = text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect();
    match rows.iter().find(|row| row.len() < columns) {
        Some(row) => Err(format!("{}: found {row:?}, expected {columns} columns or more", path.display()))?,
        None => Ok(rows),
    }
}
