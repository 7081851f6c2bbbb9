//! The layout of weights: panels of up to sixteen outputs.
//!
//! A matrix of `inputs` rows and `outputs` columns is stored as `ceil(outputs / 16)` panels, one after the other. A panel
//! has `inputs + 1` rows of as many values as it has outputs (sixteen, fewer in the last): first the biases, then the
//! weights of each input. So a kernel walks over a panel from its first value to its last, once per tile, and what it
//! needs to start its sums comes first.
//!
//! Sixteen outputs are one AVX-512 register, two of AVX2, four of NEON or SSE, and half of the registers of a
//! Cortex-M4F. Loads may be wider than the last panel: the tensor ends with as many zeros as such a load can reach, and
//! is filled up to a multiple of 64 bytes.

/// The most outputs of a panel.
pub const PANEL: usize = 16;

const ALIGNMENT: u32 = crate::ALIGNMENT as u32;

/// The bytes of a packed f32 tensor, its end padding included; `None` if that is more than 4 GiB.
#[must_use]
pub const fn panel_bytes(inputs: u32, outputs: u32) -> Option<u32> {
    let Some(rows) = inputs.checked_add(1) else { return None };
    let Some(values) = rows.checked_mul(outputs) else { return None };
    let overhang = match outputs % PANEL as u32 {
        0 => 0,
        rest => PANEL as u32 - rest,
    };
    let Some(values) = values.checked_add(overhang) else { return None };
    match values.checked_mul(4) {
        Some(bytes) => bytes.checked_next_multiple_of(ALIGNMENT),
        None => None,
    }
}

/// Packs a row-major matrix `weights`, `[inputs, outputs]`, and its biases (`[outputs]`, or none for zeros) into `panels`.
///
/// Returns `None`, with `panels` in any state, if a length does not fit: `panels` must hold
/// [`panel_bytes`] / 4 values.
#[must_use]
pub fn pack(weights: &[f32], bias: &[f32], outputs: usize, panels: &mut [f32]) -> Option<()> {
    let inputs = weights.len().checked_div(outputs)?;
    let needed = panel_bytes(inputs.try_into().ok()?, outputs.try_into().ok()?)? as usize / 4;
    let bias_fits = bias.is_empty() || bias.len() == outputs;
    if inputs * outputs != weights.len() || panels.len() != needed || !bias_fits {
        return None;
    }
    panels.fill(0.0);
    let mut rest = panels;
    for first in (0..outputs).step_by(PANEL) {
        let width = PANEL.min(outputs - first);
        let (panel, behind) = rest.split_at_mut_checked((inputs + 1) * width)?;
        rest = behind;
        let mut rows = panel.chunks_exact_mut(width);
        let bias_row = rows.next()?;
        if let Some(bias) = bias.get(first..first + width) {
            bias_row.copy_from_slice(bias);
        }
        for (to, from) in rows.zip(weights.chunks_exact(outputs)) {
            to.copy_from_slice(from.get(first..first + width)?);
        }
    }
    Some(())
}

/// A packed tensor whose length is known to fit its shape.
#[derive(Clone, Copy, Debug)]
pub struct Panels<'a> {
    data: &'a [f32],
    inputs: usize,
    outputs: usize,
}

/// Some vectors of outputs, next to each other: where their parameters lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Columns<'a, const COUNT: usize> {
    /// The tensor.
    pub(crate) data: &'a [f32],
    /// Where each vector's biases begin; its weights for input `k` begin `(1 + k) * width` further on.
    pub(crate) starts: [usize; COUNT],
    /// The number of outputs of the panels that the vectors lie in.
    pub(crate) width: usize,
    /// The index of the first output.
    pub(crate) first: usize,
}

impl<'a> Panels<'a> {
    /// A view of `data`, as [`pack`] wrote it, as panels for `inputs` inputs and `outputs` outputs; `None` if the length
    /// is not that of such a tensor, or a size is 0.
    #[must_use]
    pub fn new(data: &'a [f32], inputs: usize, outputs: usize) -> Option<Self> {
        let bytes = panel_bytes(inputs.try_into().ok()?, outputs.try_into().ok()?)?;
        let fits = inputs > 0 && outputs > 0 && data.len() == bytes as usize / 4;
        fits.then_some(Self { data, inputs, outputs })
    }

    /// The number of inputs.
    #[must_use]
    pub const fn inputs(&self) -> usize {
        self.inputs
    }

    /// The number of outputs.
    #[must_use]
    pub const fn outputs(&self) -> usize {
        self.outputs
    }

    /// `COUNT` vectors of `lanes` outputs each, from output `first` on. `None` if there are not so many whose panels have
    /// the same width; the last vector of a tensor may reach beyond it.
    ///
    /// `lanes` must divide [`PANEL`], and `first` must be a multiple of it.
    #[inline(always)]
    pub(crate) fn columns<const COUNT: usize>(&self, lanes: usize, first: usize) -> Option<Columns<'a, COUNT>> {
        let full = self.outputs / PANEL * PANEL;
        let last = first + (COUNT - 1) * lanes;
        let width = if first < full { PANEL } else { self.outputs - full };
        if last >= self.outputs || (first < full && last >= full) {
            return None;
        }
        let start = |c: usize| {
            let output = first + c * lanes;
            (self.inputs + 1) * (output / PANEL * PANEL) + output % PANEL
        };
        Some(Columns { data: self.data, starts: core::array::from_fn(start), width, first })
    }
}
