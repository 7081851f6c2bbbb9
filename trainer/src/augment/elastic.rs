//! Elastic distortion: a smooth random displacement of every pixel.
//!
//! Simard et al. (2003) draw a displacement for each pixel and smooth the field with a Gaussian. Here displacements are drawn
//! at the nodes of a coarse grid and interpolated with cubic B-splines, which are close to Gaussians and cost four products
//! per pixel and axis, however smooth the field is.

use super::resample::{LANES, Lanes};
use crate::elementwise;
use rand_xoshiro::rand_core::Rng;

/// How many nodes reach a pixel along an axis.
const REACH: usize = 4;

/// A displacement field and the grid that it is made from.
#[derive(Clone, Debug)]
pub(super) struct Elastic {
    rows: Rows,
    columns: Columns,
    /// The largest displacement of a node, vertical and horizontal.
    limits: [f32; 2],
    /// `[nodes of rows, 2, blocks]`: the vertical and horizontal displacements of the grid's rows, at every pixel's column.
    expanded: Vec<Lanes>,
}

/// The grid's rows.
#[derive(Clone, Debug)]
struct Rows {
    /// How many there are.
    nodes: usize,
    /// For each row of pixels the first node that reaches it, and the shares of that node and the following ones.
    shares: Vec<(usize, [f32; REACH])>,
}

/// The grid's columns.
#[derive(Clone, Debug)]
struct Columns {
    /// Blocks of pixels in a row.
    blocks: usize,
    /// For each node the blocks that it reaches: the index of the first one, and the node's share in each of their pixels.
    reached: Vec<(usize, Vec<Lanes>)>,
}

/// For each pixel of an axis the first node that reaches it, and the shares of that node and the following ones.
fn shares(pixels: u16, spacing: f64) -> Vec<(usize, [f32; REACH])> {
    if pixels == 1 {
        // Nothing is interpolated across a single row.
        return vec![(0, [1.0, 0.0, 0.0, 0.0])];
    }
    let places = (0..pixels).map(|pixel| f64::from(pixel) / spacing);
    places.map(|place| (place as usize, cubic_b_spline(place.fract()).map(|share| share as f32))).collect()
}

/// The variance of an interpolated value relative to that of a node, averaged over the pixels.
fn variance(shares: &[(usize, [f32; REACH])]) -> f32 {
    let squares = shares.iter().map(|(_, shares)| shares.iter().map(|share| share * share).sum::<f32>());
    squares.sum::<f32>() / shares.len() as f32
}

fn node_count(shares: &[(usize, [f32; REACH])]) -> usize {
    shares.last().map_or(0, |(first, _)| first + REACH)
}

impl Columns {
    fn new(shares: &[(usize, [f32; REACH])]) -> Self {
        let reached = |node: usize| {
            let share = |&(first, shares): &(usize, [f32; REACH])| match node.checked_sub(first) {
                Some(place) if place < REACH => shares[place],
                _ => 0.0,
            };
            let mut blocks: Vec<Lanes> = Vec::new();
            let mut start = 0;
            for (index, block) in shares.chunks(LANES).enumerate() {
                let lanes = std::array::from_fn(|lane| block.get(lane).map_or(0.0, share));
                if lanes != [0.0; LANES] {
                    start = if blocks.is_empty() { index } else { start };
                    blocks.push(lanes);
                }
            }
            (start, blocks)
        };
        Columns { blocks: shares.len().div_ceil(LANES), reached: (0..node_count(shares)).map(reached).collect() }
    }
}

/// The shares of four nodes in a place between the second and the third, 0 to 1.
fn cubic_b_spline(place: f64) -> [f64; REACH] {
    let left = 1.0 - place;
    let inner = |x: f64| (3.0 * x * x * x - 6.0 * x * x + 4.0) / 6.0;
    [left.powi(3) / 6.0, inner(place), inner(left), place.powi(3) / 6.0]
}

impl Elastic {
    /// For images of `size`, height and width; `strength` and `smoothness` as in [`Augment`](super::Augment).
    pub(super) fn new(size: [u16; 2], strength: f32, smoothness: f32) -> Self {
        // A cubic B-spline is the sum of four uniform distributions as wide as the nodes are apart: its variance is a third
        // of the square of their distance.
        let spacing = f64::from(smoothness) * 3f64.sqrt();
        let [rows, columns] = size.map(|pixels| shares(pixels, spacing));
        // The variance of a node is a third of the square of its limit.
        let limit = strength * (3.0 / (variance(&rows) * variance(&columns))).sqrt();
        // A single row is not displaced vertically.
        let limits = size.map(|pixels| if pixels > 1 { limit } else { 0.0 });
        let (rows, columns) = (Rows { nodes: node_count(&rows), shares: rows }, Columns::new(&columns));
        Elastic { expanded: vec![[0.0; LANES]; rows.nodes * 2 * columns.blocks], rows, columns, limits }
    }

    /// Draws a new field.
    pub(super) fn draw(&mut self, rng: &mut (impl Rng + ?Sized)) {
        let Elastic { columns, limits, expanded, .. } = self;
        for row in expanded.chunks_exact_mut(2 * columns.blocks) {
            row.fill([0.0; LANES]);
            let (vertical, horizontal) = row.split_at_mut(columns.blocks);
            for (start, blocks) in &columns.reached {
                let word = rng.next_u64();
                let y = limits[0] * super::symmetric((word >> 32) as u32);
                let x = limits[1] * super::symmetric(word as u32);
                let shares = blocks.as_flattened();
                for (row, factor) in [(&mut *vertical, y), (&mut *horizontal, x)] {
                    elementwise::add_scaled(&mut row[*start..].as_flattened_mut()[..shares.len()], factor, shares);
                }
            }
        }
    }

    /// The places, y and x, of a block of pixels in one row after their displacement.
    #[inline(always)]
    pub(super) fn displaced(&self, row: usize, block: usize, places: [Lanes; 2]) -> [Lanes; 2] {
        let blocks = self.columns.blocks;
        let (first, shares) = &self.rows.shares[row];
        let nodes = &self.expanded[first * 2 * blocks..][..REACH * 2 * blocks];
        let [y, x] = places;
        [
            add_weighted(&y, shares, &nodes[block..], 2 * blocks),
            add_weighted(&x, shares, &nodes[blocks + block..], 2 * blocks),
        ]
    }
}

/// The sums of `start` and four blocks, `stride` apart.
#[inline(always)]
fn add_weighted(start: &Lanes, shares: &[f32; REACH], nodes: &[Lanes], stride: usize) -> Lanes {
    let (a, b, c, d) = (&nodes[0], &nodes[stride], &nodes[2 * stride], &nodes[3 * stride]);
    let mut sums = [0.0; LANES];
    for (lane, sum) in sums.iter_mut().enumerate() {
        *sum = start[lane] + shares[0] * a[lane] + shares[1] * b[lane] + shares[2] * c[lane] + shares[3] * d[lane];
    }
    sums
}
