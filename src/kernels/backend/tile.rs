//! The one inner loop: a tile of sums, rows of inputs times vectors of a weight panel.

use super::Backend;
#[cfg(cortex_m_fpu)]
use super::cortex_m;
use super::non_zero::{FindNonZero, NonZero, Numbers};
use crate::kernels::pack::{PANEL, sealed::Load};
use crate::kernels::vector::Vector;
use core::marker::PhantomData;
use core::ptr;
use half::f16;

impl Load for f32 {
    #[inline(always)]
    unsafe fn load<V: Vector>(token: V::Token, from: *const Self) -> V {
        // SAFETY: the caller's promise is the same.
        unsafe { V::load_from(token, from) }
    }
}

impl Load for f16 {
    #[inline(always)]
    unsafe fn load<V: Vector>(token: V::Token, from: *const Self) -> V {
        // SAFETY: the caller's promise is the same.
        unsafe { V::load_f16_from(token, from) }
    }

    fn row_backend(backend: Backend) -> Backend {
        backend.for_f16_loads()
    }
}

/// What the inner loop can read inputs from.
#[allow(unreachable_pub, reason = "the sealed half of `pack::Weight` names it")]
pub trait Element: Copy {
    /// Whether speed is worth copies of a loop: bytes are read by a model's first layer only, which converts them before
    /// if it has the room.
    const UNROLL: bool;

    /// The values, where they are f32.
    #[cfg(not(target_os = "none"))]
    fn plain(values: &[Self]) -> Option<&[f32]>;

    /// The value, given the input specification's scale and offset.
    fn value(self, scale: f32, offset: f32) -> f32;

    /// The loops for eight and for sixteen sums.
    #[cfg(cortex_m_fpu)]
    const WINDOW_SUMS: [cortex_m::WindowSums; 2];
}

impl Element for f32 {
    const UNROLL: bool = true;

    #[cfg(cortex_m_fpu)]
    const WINDOW_SUMS: [cortex_m::WindowSums; 2] = [cortex_m::eight_sums, cortex_m::sixteen_sums];

    #[cfg(not(target_os = "none"))]
    #[inline(always)]
    fn plain(values: &[Self]) -> Option<&[f32]> {
        Some(values)
    }

    #[inline(always)]
    fn value(self, _: f32, _: f32) -> f32 {
        self
    }
}

impl Element for u8 {
    const UNROLL: bool = false;

    #[cfg(cortex_m_fpu)]
    const WINDOW_SUMS: [cortex_m::WindowSums; 2] = [cortex_m::eight_sums_of_bytes, cortex_m::sixteen_sums_of_bytes];

    #[cfg(not(target_os = "none"))]
    #[inline(always)]
    fn plain(_: &[Self]) -> Option<&[f32]> {
        None
    }

    #[inline(always)]
    fn value(self, scale: f32, offset: f32) -> f32 {
        f32::from(self) * scale + offset
    }
}

/// Inputs with the scale and offset that bytes have.
#[derive(Clone, Copy, Debug)]
#[allow(unreachable_pub, reason = "the sealed half of `pack::Weight` names it")]
pub struct Inputs<'a, E> {
    pub(crate) values: &'a [E],
    pub(crate) scale: f32,
    pub(crate) offset: f32,
}

impl<'a> Inputs<'a, f32> {
    pub(crate) fn plain(values: &'a [f32]) -> Self {
        Self { values, scale: 1.0, offset: 0.0 }
    }
}

impl<E: Element> Inputs<'_, E> {
    /// Writes the values to `to`, as many as fit.
    pub(crate) fn convert(&self, to: &mut [f32]) {
        let values = self.values.iter().map(|value| value.value(self.scale, self.offset));
        to.iter_mut().zip(values).for_each(|(to, value)| *to = value);
    }
}

/// Sums of `ROWS` rows times `COLUMNS` vectors, in registers.
pub(crate) type Tile<V, const ROWS: usize, const COLUMNS: usize> = [[V; COLUMNS]; ROWS];

/// The weights of some vectors of outputs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weights<'a, W, const COLUMNS: usize> {
    pub(crate) values: &'a [W],
    /// The first weight of each vector.
    pub(crate) columns: [usize; COLUMNS],
    /// From the weights of one input to those of the next.
    pub(crate) stride: usize,
}

/// Which inputs belong to a sum, seen from the first of them: `count` runs of `len` inputs that lie next to each other; the
/// runs begin `pitch` apart. Their weights follow each other without a gap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Runs {
    pub(crate) count: usize,
    pub(crate) pitch: usize,
    pub(crate) len: usize,
}

/// Where tiles of vectors `V` find their operands: within the slices, which is checked when this is made.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a, V, E, W, const COLUMNS: usize> {
    inputs: Inputs<'a, E>,
    weights: Weights<'a, W, COLUMNS>,
    runs: Runs,
    /// The last input that a row may begin with.
    last_row: usize,
    vector: PhantomData<V>,
}

impl<'a, V: Vector, E, W, const COLUMNS: usize> Operands<'a, V, E, W, COLUMNS> {
    /// `None` if there is nothing to add up, or if there are not enough inputs or weights.
    #[inline(always)]
    pub(crate) fn new(inputs: Inputs<'a, E>, weights: Weights<'a, W, COLUMNS>, runs: Runs) -> Option<Self> {
        let last_row = inputs.values.len().checked_sub(extent(runs.count, runs.pitch, runs.len)?)?;
        let behind = extent(runs.count.checked_mul(runs.len)?, weights.stride, V::LANES)?;
        let last_column = weights.values.len().checked_sub(behind)?;
        let fits = weights.columns.iter().all(|column| *column <= last_column);
        fits.then_some(Self { inputs, weights, runs, last_row, vector: PhantomData })
    }

    /// Whether there are enough inputs behind the first of each row.
    #[inline(always)]
    fn fit<const ROWS: usize>(&self, rows: [usize; ROWS]) -> bool {
        let mut last = 0;
        for row in rows {
            last = if row > last { row } else { last };
        }
        last <= self.last_row
    }
}

/// From the first to behind the last of `count` runs of `len` values that begin `pitch` apart; `None` if there are none.
#[inline(always)]
fn extent(count: usize, pitch: usize, len: usize) -> Option<usize> {
    count.checked_sub(1)?.checked_mul(pitch)?.checked_add(len)
}

/// The sums of `tile`, each with the products of its row's inputs and its column's weights added. The operands have a single
/// run.
///
/// Vectors may be wider than the panel that they lie in: the lanes beyond it add up what follows in memory, and nobody
/// looks at them. `rows` are the first inputs of each row; where there are not enough behind one of them, the tile stays
/// as it is, which the kernels' length checks make unreachable.
#[inline(always)]
pub(crate) fn accumulate_run<V: Vector, E: Element, W: Load, const ROWS: usize, const COLUMNS: usize>(
    token: V::Token,
    operands: &Operands<'_, V, E, W, COLUMNS>,
    rows: [usize; ROWS],
    tile: Tile<V, ROWS, COLUMNS>,
) -> Tile<V, ROWS, COLUMNS> {
    if !operands.fit(rows) {
        return tile;
    }
    let len = operands.runs.len;
    // The commonest stride, known to the compiler, which then folds it into the addresses.
    // SAFETY: the rows fit, there is a run, and the sizes are the operands'.
    unsafe {
        match operands.weights.stride {
            PANEL if V::UNROLL => runs(token, operands, rows, 1, len, PANEL, tile),
            stride => runs(token, operands, rows, 1, len, stride, tile),
        }
    }
}

/// [`accumulate_run`] of the inputs with these numbers only. If there are other ones among them, the tile stays as it is.
#[inline(always)]
pub(crate) fn accumulate_listed<V: Vector, W: Load, const ROWS: usize, const COLUMNS: usize>(
    token: V::Token,
    operands: &Operands<'_, V, f32, W, COLUMNS>,
    rows: [usize; ROWS],
    numbers: Numbers<'_>,
    mut tile: Tile<V, ROWS, COLUMNS>,
) -> Tile<V, ROWS, COLUMNS> {
    if !operands.fit(rows) || !numbers.are_below(operands.runs.len) {
        return tile;
    }
    // SAFETY: the rows fit.
    let (rows, columns) = unsafe { (row_pointers(operands, rows), column_pointers(operands)) };
    for number in numbers.numbers() {
        let k = usize::from(*number);
        // SAFETY: the number is that of an input of the run.
        unsafe { step(token, &rows, &columns, (k, k * operands.weights.stride), (1.0, 0.0), &mut tile) };
    }
    tile
}

/// The numbers of those of the `len` inputs from each of `rows` on that are not zero in all of them; `None` if it is as well to
/// take all.
#[inline(always)]
pub(crate) fn non_zero_inputs<'r, T: FindNonZero, const ROWS: usize>(
    token: T,
    inputs: &[f32],
    rows: [usize; ROWS],
    len: usize,
    room: &'r mut NonZero,
) -> Option<Numbers<'r>> {
    let last = inputs.len().checked_sub(len)?;
    let mut pointers = [inputs.as_ptr().cast(); ROWS];
    for (pointer, row) in pointers.iter_mut().zip(rows) {
        if row > last {
            return None;
        }
        // SAFETY: `len` inputs follow the row's first.
        *pointer = unsafe { inputs.as_ptr().add(row).cast() };
    }
    // SAFETY: likewise.
    unsafe { room.find(token, pointers, len) }
}

/// Rows of inputs times panels of [`PANEL`] outputs.
pub(crate) struct Product<'a, W> {
    /// The inputs of the first row; those of the next begin `row_pitch` further on.
    pub(crate) inputs: &'a [f32],
    pub(crate) row_pitch: usize,
    pub(crate) rows: usize,
    /// How many inputs of each row are multiplied.
    pub(crate) len: usize,
    /// The weights from the first panel's first on; those of the next panel begin `panel_pitch` further on.
    pub(crate) weights: &'a [W],
    pub(crate) panel_pitch: usize,
    pub(crate) panels: usize,
    /// What the sums of each row begin with; if there is nothing, with the outputs as they are.
    pub(crate) bias: Option<&'a [f32]>,
    /// The least value that is stored.
    pub(crate) floor: f32,
    /// The outputs of the first row; those of the next begin `out_pitch` further on.
    pub(crate) out: &'a mut [f32],
    pub(crate) out_pitch: usize,
    /// Whether to look for inputs of 0.
    pub(crate) search: bool,
}

impl<W> Product<'_, W> {
    /// Whether all operands lie within their slices, and there are an input and a panel, without which a tile's loops
    /// would not end.
    #[inline(always)]
    fn fits(&self) -> bool {
        let within = |count: usize, pitch: usize, len: usize, all: usize| match extent(count, pitch, len) {
            Some(extent) => extent <= all,
            None => false,
        };
        let width = PANEL.saturating_mul(self.panels);
        within(self.rows, self.row_pitch, self.len, self.inputs.len())
            && within(self.panels, self.panel_pitch, PANEL.saturating_mul(self.len), self.weights.len())
            && within(self.rows, self.out_pitch, width, self.out.len())
            && self.bias.is_none_or(|bias| bias.len() >= width)
            && self.len > 0
    }
}

/// A tile for each panel of the same rows, from what its sums begin with to what is stored, of f32 or f16 panels that are [`PANEL`]
/// outputs wide. Distances are in bytes. What says "next" is moved on to the next panel.
#[allow(unreachable_pub, reason = "the sealed half of `pack::Weight` names it")]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "other backends have no loops for it"))]
pub struct TileRow {
    /// The first input of the first row, and what is behind its last, which is at least one further on.
    pub(super) inputs: *const f32,
    pub(super) inputs_end: *const f32,
    /// From the inputs of a row to those of the next.
    pub(super) row_pitch: usize,
    /// The numbers of the inputs that are multiplied, and what is behind the last; null for all inputs.
    pub(super) numbers: *const u16,
    pub(super) numbers_end: *const u16,
    /// What the processor may begin to fetch for the next row of tiles, and from there to what it may fetch an input later.
    pub(super) next_inputs: *const f32,
    pub(super) next_step: usize,
    /// The first weight of the next panel, from there to that of the panel behind it, and how many panels there are.
    pub(super) panel: *const u8,
    pub(super) panel_pitch: usize,
    pub(super) panels: usize,
    /// What the sums of the first row begin with in the next panel, and from there to the next row's; 0 where all begin with the same.
    pub(super) begin: *const f32,
    pub(super) begin_pitch: usize,
    /// Where the first row of the next panel is stored, and from there to the next row.
    pub(super) out: *mut f32,
    pub(super) out_pitch: usize,
    /// The least value that is stored.
    pub(super) floor: f32,
}

/// How many tiles of each of a backend's two heights compute `rows` rows: so many of the lower one behind the higher ones that few rows
/// are computed twice.
#[inline(always)]
const fn tiles_of(rows: usize, (high, low): (usize, usize)) -> (usize, usize) {
    let (tiles, left) = (rows / high, rows % high);
    match (tiles, left) {
        (0, _) => (0, rows.div_ceil(low)),
        (_, 0) => (tiles, 0),
        _ if high + left <= 2 * low => (tiles - 1, 2),
        _ if left <= low => (tiles, 1),
        _ => (tiles + 1, 0),
    }
}

/// How many rows are computed, some of them twice, if tiles of these heights compute `rows`.
#[inline(always)]
pub(crate) const fn rows_in_whole_tiles(rows: usize, heights: (usize, usize)) -> usize {
    let (high, low) = tiles_of(rows, heights);
    high * heights.0 + low * heights.1
}

/// Computes a product in the backend's [`WHOLE_TILES`](Vector::WHOLE_TILES). The rows must fill them, or else be no fewer than the
/// lower one's, and sums begin with biases.
#[inline(always)]
pub(crate) fn compute_whole_tiles<V: Vector, W: Load>(token: V::Token, product: Product<'_, W>) {
    let heights = V::WHOLE_TILES;
    let rows = product.rows;
    if !product.fits() || rows < heights.1 {
        return;
    }
    let (high, low) = tiles_of(rows, heights);
    let out = product.out.as_mut_ptr();
    let mut walk = Walk { product: &product, out, found: false, tiles: 0, done: 0 };
    // (Apart from the walk: what assembly sees may change whenever it runs, as far as the compiler knows.)
    let (mut tile_row, mut room) = (walk.tile_row(), NonZero::new());
    // SAFETY: the product fits, and has a tile's rows at least.
    unsafe {
        match heights {
            (8, 4) => {
                walk.rows_of_tiles::<V, 8>(token, high, &mut tile_row, &mut room);
                walk.rows_of_tiles::<V, 4>(token, low, &mut tile_row, &mut room);
            }
            (6, 4) => {
                walk.rows_of_tiles::<V, 6>(token, high, &mut tile_row, &mut room);
                walk.rows_of_tiles::<V, 4>(token, low, &mut tile_row, &mut room);
            }
            _ => {}
        }
    }
}

/// One row of tiles in so many is searched for zeros where the one before had too few.
const SEARCHED: usize = 4;

/// A walk through a product, tile by tile.
struct Walk<'a, W> {
    product: &'a Product<'a, W>,
    /// The product's outputs.
    out: *mut f32,
    /// Whether the last search found enough zeros.
    found: bool,
    /// Rows of tiles so far, and their rows.
    tiles: usize,
    done: usize,
}

impl<W: Load> Walk<'_, W> {
    /// A row of tiles with what is the same for all of them.
    #[inline(always)]
    fn tile_row(&self) -> TileRow {
        let Product { inputs, row_pitch, weights, panel_pitch, panels, bias, floor, out_pitch, .. } = *self.product;
        let out_pitch = out_pitch * size_of::<f32>();
        TileRow {
            inputs: inputs.as_ptr(),
            inputs_end: inputs.as_ptr(),
            row_pitch: row_pitch * size_of::<f32>(),
            numbers: ptr::null(),
            numbers_end: ptr::null(),
            next_inputs: inputs.as_ptr(),
            next_step: 0,
            panel: weights.as_ptr().cast(),
            panel_pitch: panel_pitch * size_of::<W>(),
            panels,
            begin: self.out,
            begin_pitch: if bias.is_some() { 0 } else { out_pitch },
            out: self.out,
            out_pitch,
            floor,
        }
    }

    /// The next rows: so many tiles of `ROWS`, of which the last begins among the rows before it if too few are left.
    ///
    /// # Safety
    /// The product must fit, and have `ROWS` rows at least if there is a tile.
    #[inline(always)]
    unsafe fn rows_of_tiles<V: Vector, const ROWS: usize>(
        &mut self,
        token: V::Token,
        tiles: usize,
        tile_row: &mut TileRow,
        room: &mut NonZero,
    ) {
        // (All of the next inputs are fetched only where they are in one piece.)
        let Product { row_pitch, len, .. } = *self.product;
        tile_row.next_step = if row_pitch == len { ROWS * size_of::<f32>() } else { 0 };
        for _ in 0..tiles {
            let row = self.done.min(self.product.rows - ROWS);
            // SAFETY: the caller's promise.
            unsafe { self.row_of_tiles::<V, ROWS>(token, row, tile_row, room) };
            self.done += ROWS;
        }
    }

    /// All panels of rows `row..row + ROWS`.
    ///
    /// # Safety
    /// The product must fit, and have these rows.
    #[inline(always)]
    unsafe fn row_of_tiles<V: Vector, const ROWS: usize>(
        &mut self,
        token: V::Token,
        row: usize,
        tile_row: &mut TileRow,
        room: &mut NonZero,
    ) {
        let Product { inputs, row_pitch, len, weights, bias, out_pitch, search, .. } = *self.product;
        // SAFETY: the operands of these rows lie within their slices, those of all panels do, and there is an input; what is behind the
        // inputs is only said to be needed next, which may be anywhere.
        unsafe {
            let inputs = inputs.as_ptr().add(row * row_pitch);
            let out = self.out.add(row * out_pitch);
            if search {
                let numbers = self.find_non_zero::<V, ROWS>(token, inputs, room).map(<[u16]>::as_ptr_range);
                tile_row.numbers = numbers.as_ref().map_or(ptr::null(), |numbers| numbers.start);
                tile_row.numbers_end = numbers.map_or(ptr::null(), |numbers| numbers.end);
            }
            tile_row.inputs = inputs;
            tile_row.inputs_end = inputs.add(len);
            tile_row.next_inputs = inputs.wrapping_add(ROWS * row_pitch);
            tile_row.panel = weights.as_ptr().cast();
            tile_row.begin = bias.map_or(out.cast_const(), <[f32]>::as_ptr);
            tile_row.out = out;
            V::compute_tile_row::<W, ROWS>(token, tile_row);
        }
    }

    /// The numbers of the inputs that are not zero in all of the rows from `inputs` on; `None` if it is as well to take all of them.
    ///
    /// # Safety
    /// The rows must be `ROWS` of the product's, which must fit.
    #[inline(always)]
    unsafe fn find_non_zero<'r, V: Vector, const ROWS: usize>(
        &mut self,
        token: V::Token,
        inputs: *const f32,
        room: &'r mut NonZero,
    ) -> Option<&'r [u16]> {
        let Product { row_pitch, len, .. } = *self.product;
        let search = self.found || self.tiles.is_multiple_of(SEARCHED);
        self.tiles += 1;
        if !search {
            return None;
        }
        let mut rows = [inputs.cast(); ROWS];
        for (r, row) in rows.iter_mut().enumerate() {
            // SAFETY: the caller vouches for the rows.
            *row = unsafe { inputs.add(r * row_pitch).cast() };
        }
        // SAFETY: likewise.
        let numbers = unsafe { room.find(token, rows, len) };
        self.found = numbers.is_some();
        numbers.map(|numbers| numbers.numbers())
    }
}

/// The first input of each row.
///
/// # Safety
/// The rows must fit.
#[inline(always)]
unsafe fn row_pointers<V, E, W, const ROWS: usize, const COLUMNS: usize>(
    operands: &Operands<'_, V, E, W, COLUMNS>,
    starts: [usize; ROWS],
) -> [*const E; ROWS] {
    let mut rows = [operands.inputs.values.as_ptr(); ROWS];
    for (pointer, row) in rows.iter_mut().zip(starts) {
        // SAFETY: the row begins within the inputs, since the operands fit.
        *pointer = unsafe { pointer.add(row) };
    }
    rows
}

/// The first weight of each column.
#[inline(always)]
fn column_pointers<V, E, W, const COLUMNS: usize>(operands: &Operands<'_, V, E, W, COLUMNS>) -> [*const W; COLUMNS] {
    let mut columns = [operands.weights.values.as_ptr(); COLUMNS];
    for (pointer, column) in columns.iter_mut().zip(operands.weights.columns) {
        // SAFETY: the column begins within the weights, which was checked when the operands were made.
        *pointer = unsafe { pointer.add(column) };
    }
    columns
}

/// [`accumulate_run`] for any number of runs.
#[inline(always)]
pub(crate) fn accumulate_windows<V: Vector, E: Element, W: Load, const ROWS: usize, const COLUMNS: usize>(
    token: V::Token,
    operands: &Operands<'_, V, E, W, COLUMNS>,
    rows: [usize; ROWS],
    tile: Tile<V, ROWS, COLUMNS>,
) -> Tile<V, ROWS, COLUMNS> {
    if !operands.fit(rows) {
        return tile;
    }
    let Runs { count, len, .. } = operands.runs;
    // The commonest sizes, known to the compiler, which then unrolls the loops as well.
    // SAFETY: the rows fit, and the sizes are the operands'.
    unsafe {
        match (count, len, operands.weights.stride) {
            (3, 3, PANEL) if V::UNROLL && E::UNROLL => runs(token, operands, rows, 3, 3, PANEL, tile),
            (5, 5, PANEL) if V::UNROLL && E::UNROLL => runs(token, operands, rows, 5, 5, PANEL, tile),
            (count, len, PANEL) if V::UNROLL && E::UNROLL => runs(token, operands, rows, count, len, PANEL, tile),
            (count, len, stride) => runs(token, operands, rows, count, len, stride, tile),
        }
    }
}

/// [`accumulate_windows`] for rows that fit.
///
/// The tile is a value, not a reference: a reference would have it written to memory for every input.
///
/// # Safety
/// The rows must fit, and `len` and `stride` must be those of the operands, and `count` at most theirs.
#[inline(always)]
unsafe fn runs<V: Vector, E: Element, W: Load, const ROWS: usize, const COLUMNS: usize>(
    token: V::Token,
    operands: &Operands<'_, V, E, W, COLUMNS>,
    starts: [usize; ROWS],
    count: usize,
    len: usize,
    stride: usize,
    tile: Tile<V, ROWS, COLUMNS>,
) -> Tile<V, ROWS, COLUMNS> {
    let Inputs { scale, offset, .. } = operands.inputs;
    // One pointer for each row and column, so that the loop only adds the same numbers to all of them.
    // SAFETY: the rows fit.
    let (rows, columns) = unsafe { (row_pointers(operands, starts), column_pointers(operands)) };
    // A sum has to wait for the one before it: a small tile gets a second and more sets of sums to take turns with.
    let sets = (V::CHAINS / (ROWS * COLUMNS)).clamp(1, MAX_SETS);
    // Apart only because the library takes a sixth less time to compile so.
    if sets == 1 {
        let mut tile = tile;
        for run in 0..count {
            let (input, weight) = (run * operands.runs.pitch, run * len * stride);
            for k in 0..len {
                let at = (input + k, weight + k * stride);
                // SAFETY: `run < count`, `k < len`, and the operands fit.
                unsafe { step(token, &rows, &columns, at, (scale, offset), &mut tile) };
            }
        }
        return tile;
    }
    let zero = V::splat(token, 0.0);
    let mut tiles = [[[zero; COLUMNS]; ROWS]; MAX_SETS];
    let [first, ..] = &mut tiles;
    *first = tile;
    for run in 0..count {
        let (input, weight) = (run * operands.runs.pitch, run * len * stride);
        let mut k = 0;
        while k + sets <= len {
            for (set, tile) in tiles.iter_mut().enumerate().take(sets) {
                let at = (input + k + set, weight + (k + set) * stride);
                // SAFETY: `run < count`, `k + set < len`, and the operands fit.
                unsafe { step(token, &rows, &columns, at, (scale, offset), tile) };
            }
            k += sets;
        }
        let [tile, ..] = &mut tiles;
        while k < len {
            // SAFETY: `run < count`, `k < len`, and the operands fit.
            unsafe { step(token, &rows, &columns, (input + k, weight + k * stride), (scale, offset), tile) };
            k += 1;
        }
    }
    let [mut tile, others @ ..] = tiles;
    for other in others.iter().take(sets - 1) {
        for (sums, more) in tile.iter_mut().zip(other) {
            for (sum, more) in sums.iter_mut().zip(more) {
                *sum = sum.add(*more);
            }
        }
    }
    tile
}

/// Whether an input of 0, which adds nothing, is worth a branch: it is where floating point is software. (It is skipped even
/// where it meets a weight that is infinite or NaN.)
const SKIP_ZEROS: bool = cfg!(all(target_os = "none", not(cortex_m_fpu)));

/// The most sets of sums.
const MAX_SETS: usize = 4;

/// Adds the products of one input of each row, `input` behind its first, with the weights `weight` behind each column's
/// first.
///
/// # Safety
/// There must be a value that far behind each of `rows`, and `V::LANES` weights that far behind each of `columns`.
#[inline(always)]
unsafe fn step<V: Vector, E: Element, W: Load, const ROWS: usize, const COLUMNS: usize>(
    token: V::Token,
    rows: &[*const E; ROWS],
    columns: &[*const W; COLUMNS],
    (input, weight): (usize, usize),
    (scale, offset): (f32, f32),
    tile: &mut Tile<V, ROWS, COLUMNS>,
) {
    let mut vectors = [V::splat(token, 0.0); COLUMNS];
    for (vector, column) in vectors.iter_mut().zip(columns) {
        // SAFETY: the caller's promise.
        *vector = unsafe { W::load(token, column.add(weight)) };
    }
    for (sums, row) in tile.iter_mut().zip(rows) {
        // SAFETY: the caller's promise.
        let input = unsafe { *row.add(input) };
        let input = input.value(scale, offset);
        if SKIP_ZEROS && input.to_bits() << 1 == 0 {
            continue;
        }
        let input = V::splat(token, input);
        for (sum, vector) in sums.iter_mut().zip(vectors) {
            *sum = input.mul_add(vector, *sum);
        }
    }
}
