//! The register tile that every sum of a convolution is made of.
//!
//! A tile is `R` sums of `N` lanes each: `sums[r] += values[base_r + step_i] * vectors[i]` for all `i`. With positions as
//! bases, places in the window as steps and weights as vectors that is a convolution; with the roles of bases and steps
//! changed, and output gradients as vectors, it is the gradient of the weights. Nothing has to be spread out into windows.

/// What the loops have to know of the instruction set that they are compiled for.
pub(super) trait Isa {
    /// Whether `f32::mul_add` is one instruction. Where it is not, it is a call that takes many times as long.
    const FMA: bool;
    /// The most rows of a tile of eight lanes whose sums all stay in registers; at most [`TALLEST`].
    const ROWS_OF_8: usize;
    /// The same for sixteen lanes.
    const ROWS_OF_16: usize;
}

/// The most rows that any tile has. Twelve sums hide the latency of the multiply-adds, and twelve pointers still fit into
/// the registers of x86-64.
pub(super) const TALLEST: usize = 12;

/// 32 registers of 16 lanes.
pub(super) struct Avx512;
/// 16 registers of 8 lanes.
pub(super) struct Avx2;
/// 32 registers of 4 lanes.
#[cfg(target_arch = "aarch64")]
pub(super) struct Neon;
/// 16 registers of 4 lanes, as SSE2 has.
pub(super) struct Baseline;

impl Isa for Avx512 {
    const FMA: bool = true;
    const ROWS_OF_8: usize = TALLEST;
    const ROWS_OF_16: usize = TALLEST;
}

impl Isa for Avx2 {
    const FMA: bool = true;
    const ROWS_OF_8: usize = TALLEST;
    const ROWS_OF_16: usize = 6;
}

#[cfg(target_arch = "aarch64")]
impl Isa for Neon {
    const FMA: bool = true;
    const ROWS_OF_8: usize = TALLEST;
    const ROWS_OF_16: usize = 6;
}

impl Isa for Baseline {
    const FMA: bool = false;
    const ROWS_OF_8: usize = 6;
    const ROWS_OF_16: usize = 3;
}

/// Calls `$function::<Isa>($arguments)` for the instruction set of the surrounding `multiversion` function.
macro_rules! for_target {
    ($function:ident($($argument:expr),* $(,)?)) => {
        multiversion::target::match_target! {
            "x86_64+avx512f+avx512vl+fma" => $function::<crate::kernels::tile::Avx512>($($argument),*),
            "x86_64+avx2+fma" => $function::<crate::kernels::tile::Avx2>($($argument),*),
            "aarch64+neon" => $function::<crate::kernels::tile::Neon>($($argument),*),
            _ => $function::<crate::kernels::tile::Baseline>($($argument),*),
        }
    };
}
pub(super) use for_target;

/// The body once for every row, with a constant index: a loop would be vectorised across the rows.
macro_rules! for_each_row {
    ($count:expr, $row:ident, $body:block) => { for_each_row!(@ $count, $row, $body, 0 1 2 3 4 5 6 7 8 9 10 11) };
    (@ $count:expr, $row:ident, $body:block, $($index:literal)*) => {
        $(if $index < $count {
            let $row = $index;
            $body
        })*
    };
}

/// `a * b + c`, rounded once where the instruction set has that, twice elsewhere.
#[inline(always)]
pub(super) fn multiply_add<I: Isa>(a: f32, b: f32, c: f32) -> f32 {
    if I::FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Adds `values[bases[r] + step] * vector` to `sums[r]` for every step and its vector. `reach` is larger than any step.
#[inline(always)]
pub(super) fn accumulate<'v, I: Isa, const R: usize, const N: usize>(
    values: &[f32],
    bases: [usize; R],
    reach: usize,
    steps: &[u32],
    vectors: impl Iterator<Item = &'v [f32; N]>,
    mut sums: [[f32; N]; R],
) -> [[f32; N]; R] {
    // All of one length, so that one comparison per step checks the bounds of every row.
    let rows: [&[f32]; R] = bases.map(|base| &values[base..][..reach]);
    for (&step, vector) in steps.iter().zip(vectors) {
        let step = step as usize;
        for_each_row!(R, row, {
            let value = rows[row][step];
            for lane in 0..N {
                sums[row][lane] = multiply_add::<I>(value, vector[lane], sums[row][lane]);
            }
        });
    }
    sums
}

/// Calls `$function::<R, ...>` for the number of rows that a tile has, up to the constant `$tallest`.
macro_rules! for_rows {
    ($rows:expr, $tallest:expr, $function:ident::<$isa:ident, _, $lanes:ident>($($argument:expr),* $(,)?)) => {
        for_rows!(@ $rows, $tallest, $function, $isa, $lanes, ($($argument),*), 1 2 3 4 5 6 7 8 9 10 11 12)
    };
    (@ $rows:expr, $tallest:expr, $function:ident, $isa:ident, $lanes:ident, $arguments:tt, $($count:literal)*) => {
        match $rows {
            $($count if $count <= $tallest => for_rows!(@call $function, $isa, $count, $lanes, $arguments),)*
            rows => unreachable!("a tile of {rows} rows"),
        }
    };
    (@call $function:ident, $isa:ident, $count:literal, $lanes:ident, ($($argument:expr),*)) => {
        $function::<$isa, $count, $lanes>($($argument),*)
    };
}
pub(super) use for_rows;

/// Cuts `count` rows into as few tiles as possible, all about as tall; gives where each starts and ends.
#[inline(always)]
pub(super) fn tiles(count: usize, tallest: usize) -> impl Iterator<Item = (usize, usize)> {
    let tiles = count.div_ceil(tallest);
    (0..tiles).map(move |tile| (tile * count / tiles, (tile + 1) * count / tiles))
}

/// Panels of 16 lanes that cover `lanes`, the last of eight where that is enough; gives where each starts and whether it
/// is one of sixteen.
pub(super) fn panels(lanes: usize) -> impl Iterator<Item = (usize, bool)> {
    (0..lanes).step_by(16).map(move |start| (start, lanes - start > 8))
}

/// `lanes`, filled up to whole panels.
pub(super) fn padded(lanes: usize) -> usize {
    lanes.next_multiple_of(8)
}

/// Copies as many values as `output` is long. A panel's last lanes may be padding.
#[inline(always)]
pub(super) fn copy_lanes<const N: usize>(sums: &[f32; N], output: &mut [f32]) {
    if let Some(whole) = output.first_chunk_mut::<N>() {
        *whole = *sums;
        return;
    }
    let (mut from, mut to) = (sums.as_slice(), output);
    copy_block::<8>(&mut from, &mut to);
    copy_block::<4>(&mut from, &mut to);
    copy_block::<2>(&mut from, &mut to);
    copy_block::<1>(&mut from, &mut to);
}

/// Copies `B` values if as many are left: copies whose lengths are known, instead of a call of `memcpy`.
#[inline(always)]
fn copy_block<const B: usize>(from: &mut &[f32], to: &mut &mut [f32]) {
    if let (Some((head, rest)), true) = (from.split_first_chunk::<B>(), to.len() >= B) {
        let (target, remaining) = std::mem::take(to).split_first_chunk_mut::<B>().expect("as long as compared");
        *target = *head;
        (*from, *to) = (rest, remaining);
    }
}

/// Adds the lanes to `output`, as many as it is long.
#[inline(always)]
pub(super) fn add_lanes<const N: usize>(sums: &[f32; N], output: &mut [f32]) {
    if let Some(whole) = output.first_chunk_mut::<N>() {
        whole.iter_mut().zip(sums).for_each(|(total, &sum)| *total += sum);
    } else {
        output.iter_mut().zip(sums).for_each(|(total, &sum)| *total += sum);
    }
}
