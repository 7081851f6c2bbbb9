//! The register tile that every sum of a convolution is made of.
//!
//! A tile is `R` rows of sums, each a few vectors wide: `sums[r] += values[base_r + step_i] * lanes_i` for all `i`. With
//! positions as bases, places in the window as steps and weights as lanes that is a convolution; with the roles of bases
//! and steps changed, and output gradients as lanes, it is the gradient of the weights. Nothing has to be spread out into
//! windows.
//!
//! Output channels come in panels of [`WIDE`] lanes, the last of [`NARROW`] where that is enough, whatever the
//! instruction set: a panel is one vector of AVX-512, or several narrower ones.

use pulp::{Arch, Simd, WithSimd};

/// The lanes of a panel.
pub(super) const WIDE: usize = 16;
/// The lanes of a last panel, if they are enough.
pub(super) const NARROW: usize = 8;

/// The loops over one panel of lanes.
pub(super) trait PanelLoops {
    /// Runs them on panels of `M` vectors.
    fn run<S: Simd, const M: usize>(self, simd: S);
}

/// Runs `loops` on panels of [`WIDE`] or [`NARROW`] lanes with the widest vectors that fit.
pub(super) fn dispatch(arch: Arch, lanes: usize, loops: impl PanelLoops) {
    match (arch, lanes) {
        // A wider vector would be half empty; but the sixteen registers more are welcome.
        #[cfg(target_arch = "x86_64")]
        (Arch::V4(simd), NARROW) => Simd::vectorize(simd, HalfVectors(loops, *simd)),
        (arch, NARROW) => arch.dispatch(Panel::<_, NARROW>(loops)),
        (arch, _) => arch.dispatch(Panel::<_, WIDE>(loops)),
    }
}

/// Loops on the vectors of AVX2, compiled for AVX-512.
#[cfg(target_arch = "x86_64")]
struct HalfVectors<L>(L, pulp::x86::V3);

#[cfg(target_arch = "x86_64")]
impl<L: PanelLoops> WithSimd for HalfVectors<L> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.0.run::<_, 1>(self.1);
    }
}

struct Panel<L, const LANES: usize>(L);

impl<L: PanelLoops, const LANES: usize> WithSimd for Panel<L, LANES> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match LANES / S::F32_LANES {
            1 => self.0.run::<S, 1>(simd),
            2 => self.0.run::<S, 2>(simd),
            4 => self.0.run::<S, 4>(simd),
            8 => self.0.run::<S, 8>(simd),
            16 => self.0.run::<S, 16>(simd),
            vectors => unreachable!("a panel of {vectors} vectors"),
        }
    }
}

/// The most rows of a tile whose sums, `M` vectors each, stay in registers. Twelve sums hide the latency of the
/// multiply-adds, and twelve pointers just fit into the registers of x86-64.
pub(super) const fn tallest<S: Simd, const M: usize>() -> usize {
    match (S::F32_LANES, M) {
        (_, 1) | (4, 2) => 12,
        (1, 16) => 3,
        _ => 6,
    }
}

/// The body once for every row, with a constant index.
macro_rules! for_each_row {
    ($count:expr, $row:ident, $body:block) => { for_each_row!(@ $count, $row, $body, 0 1 2 3 4 5 6 7 8 9 10 11) };
    (@ $count:expr, $row:ident, $body:block, $($index:literal)*) => {
        $(if $index < $count {
            let $row = $index;
            $body
        })*
    };
}

pub(super) use for_each_row;

/// Adds `values[bases[r] + step] * lanes` to row `r` for every step and its lanes. `reach` is larger than any step.
///
/// With `EACH`, each lane has a value of its own: `values[bases[r] + step + lane] * lanes[lane]`.
#[inline(always)]
pub(super) fn accumulate<'v, S: Simd, const R: usize, const M: usize, const EACH: bool>(
    simd: S,
    values: &[f32],
    bases: &[u32; R],
    reach: usize,
    steps: &[u32],
    lanes: impl Iterator<Item = &'v [S::f32s; M]>,
    initial: [S::f32s; M],
) -> [[S::f32s; M]; R] {
    let reach = if EACH { reach + M * S::F32_LANES - 1 } else { reach };
    // All of one length, so that one comparison per step checks the bounds of every row.
    let mut rows: [&[f32]; R] = [&[]; R];
    for_each_row!(R, row, {
        rows[row] = &values[bases[row] as usize..][..reach];
    });
    let mut sums = [initial; R];
    for (&step, lanes) in steps.iter().zip(lanes) {
        let step = step as usize;
        for_each_row!(R, row, {
            let factors: [S::f32s; M] = if EACH {
                *S::as_simd_f32s(&rows[row][step..step + M * S::F32_LANES]).0.first_chunk().expect("the length")
            } else {
                [simd.splat_f32s(rows[row][step]); M]
            };
            for vector in 0..M {
                sums[row][vector] = simd.mul_add_e_f32s(factors[vector], lanes[vector], sums[row][vector]);
            }
        });
    }
    sums
}

/// Calls `$function::<S, R, …>` for the number `R` of rows that a tile has, of `$vectors` vectors each.
macro_rules! for_rows {
    ($rows:expr, $vectors:tt, $function:ident::<$simd:ident, _ $(, $more:ident)*>($($argument:expr),* $(,)?)) => {
        for_rows!(@ $rows, $vectors, $function, $simd, [$($more),*], ($($argument),*), 1 2 3 4 5 6 7 8 9 10 11 12)
    };
    (@ $rows:expr, $vectors:tt, $function:ident, $simd:ident, $more:tt, $arguments:tt, $($count:literal)*) => {
        match $rows {
            $($count if $count <= const { tile::tallest::<$simd, $vectors>() } => {
                for_rows!(@call $function, $simd, $count, $more, $arguments)
            })*
            rows => unreachable!("a tile of {rows} rows"),
        }
    };
    (@call $function:ident, $simd:ident, $count:literal, [$($more:ident),*], ($($argument:expr),*)) => {
        $function::<$simd, $count $(, $more)*>($($argument),*)
    };
}
pub(super) use for_rows;

/// Cuts `count` rows into as few tiles as possible, all about as tall; gives where each starts and ends.
#[inline(always)]
pub(super) fn tiles(count: usize, tallest: usize) -> impl Iterator<Item = (usize, usize)> {
    let tiles = count.div_ceil(tallest);
    (0..tiles).map(move |tile| (tile * count / tiles, (tile + 1) * count / tiles))
}

/// The panels that cover `channels`: where each starts, and its lanes.
pub(super) fn panels(channels: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..channels).step_by(WIDE).map(move |start| (start, if channels - start > NARROW { WIDE } else { NARROW }))
}

/// `channels`, filled up to whole panels.
pub(super) const fn padded(channels: usize) -> usize {
    channels.next_multiple_of(NARROW)
}

/// Stores as many lanes as `output` is long. A panel's last lanes may be padding.
#[inline(always)]
pub(super) fn store<S: Simd, const M: usize>(simd: S, lanes: &[S::f32s; M], output: &mut [f32]) {
    if let Some(whole) = S::as_mut_simd_f32s(output).0.first_chunk_mut::<M>() {
        *whole = *lanes;
        return;
    }
    for (part, &vector) in output.chunks_mut(S::F32_LANES).zip(lanes) {
        simd.partial_store_f32s(part, vector);
    }
}

/// Adds as many lanes as `output` is long to it.
#[inline(always)]
pub(super) fn add<S: Simd, const M: usize>(simd: S, lanes: &[S::f32s; M], output: &mut [f32]) {
    for (part, &vector) in output.chunks_mut(S::F32_LANES).zip(lanes) {
        let sum = simd.add_f32s(simd.partial_load_f32s(part), vector);
        simd.partial_store_f32s(part, sum);
    }
}
