//! An image's convolution and the dense layer behind it, together, for images with much background.
//!
//! All outputs of the convolution that see nothing but zeros are the same. So the dense layer's sums are those of an image that is
//! all background, which is computed once for a batch, and for each output that is not, the products of its difference from the
//! background: neither layer touches the others.

use super::foreground::{Foreground, MOST_POOLED, PART};
use super::{Activation, Geometry, Sums};
use crate::kernels::activation::activate;
use crate::kernels::backend::narrow::{Groups, accumulate_groups};
use crate::kernels::backend::tile::Inputs;
use crate::kernels::backend::{Backend, Kernel};
use crate::kernels::dense::dense_rows;
use crate::kernels::pack::{PANEL, Panels, Weight};
use crate::kernels::vector::Vector;
use crate::layer::{Conv2d, Shape};

/// The most filters.
const MAX_FILTERS: usize = 64;

/// What the layers make of an image that is all background.
#[derive(Clone, Copy)]
pub(crate) struct Background {
    /// The convolution's filters, followed by a vector's length of anything.
    outputs: [f32; MAX_FILTERS + PANEL],
    /// The dense layer's sums.
    sums: [f32; PANEL],
}

/// A convolution over images and the dense layer behind it.
pub(crate) struct ThenDense<'a, W> {
    geometry: Geometry,
    filters: Panels<'a, W>,
    /// The convolution's activation, and the least value that it lets through.
    activation: Activation,
    floor: f32,
    dense: Panels<'a, W>,
}

impl<'a, W: Weight> ThenDense<'a, W> {
    /// `None` if the layers' sizes do not suit.
    pub(crate) fn new(
        (conv, filters, floor): (&Conv2d, Panels<'a, W>, f32),
        (input, output): (Shape, Shape),
        dense: Panels<'a, W>,
    ) -> Option<Self> {
        let geometry = Geometry::new(conv, input, output);
        let fits = dense.outputs() <= PANEL
            && filters.outputs() <= MAX_FILTERS
            && filters.inputs() == geometry.window()
            && dense.inputs() == geometry.outputs() * filters.outputs();
        fits.then_some(Self { geometry, filters, activation: conv.activation, floor, dense })
    }

    /// Whether the layers can be computed together for an image like this one, and whether it is worth it.
    pub(crate) fn suits(&self, backend: Backend, image: &[f32]) -> bool {
        suits(backend, &self.geometry, image)
    }

    /// `None` if some of it is not finite. `activate` applies what the activation does besides its floor; `room` has the length of the
    /// convolution's output, and is overwritten.
    pub(crate) fn background(
        &self,
        backend: Backend,
        activate: impl FnOnce(&mut [f32]),
        room: &mut [f32],
    ) -> Option<Background> {
        let count = self.filters.outputs();
        let mut made = Background { outputs: [0.0; MAX_FILTERS + PANEL], sums: [0.0; PANEL] };
        let outputs = made.outputs.get_mut(..count)?;
        outputs.copy_from_slice(self.filters.bias());
        outputs.iter_mut().for_each(|output| *output = at_least(self.floor, *output));
        activate(&mut *outputs);
        room.chunks_exact_mut(count.max(1)).for_each(|to| to.copy_from_slice(outputs));
        dense_rows(backend, 1, room, self.dense, f32::NEG_INFINITY, made.sums.get_mut(..self.dense.outputs())?);
        made.outputs.iter().chain(&made.sums).all(|value| value.is_finite()).then_some(made)
    }

    /// The outputs of the dense layer for an image, none of them less than `floor`; `false` if it is as well to compute one layer
    /// after the other. `room` is overwritten.
    pub(crate) fn run(
        &self,
        backend: Backend,
        image: &[f32],
        background: &Background,
        floor: f32,
        room: &mut [f32],
        out: &mut [f32],
    ) -> bool {
        let mut sums = background.sums;
        let kernel = ThenDenseKernel { layers: self, image, background: &background.outputs, room, sums: &mut sums };
        let done = image.len() == self.geometry.elements() && W::conv2d_then_dense(backend, kernel);
        out.iter_mut().zip(sums).for_each(|(to, sum)| *to = at_least(floor, sum));
        done
    }
}

/// See [`ThenDense::suits`].
#[inline(never)]
fn suits(backend: Backend, geometry: &Geometry, image: &[f32]) -> bool {
    image.len() == geometry.elements() && backend.dispatch(SuitsKernel { geometry, image })
}

struct SuitsKernel<'a> {
    geometry: &'a Geometry,
    image: &'a [f32],
}

impl Kernel for SuitsKernel<'_> {
    type Output = bool;

    #[inline(always)]
    fn run<V: Vector, const ROWS: usize, const COLUMNS: usize, const SINGLE: usize, const WINDOWS: usize>(
        self,
        token: V::Token,
    ) -> bool {
        can_leave_out::<V, WINDOWS>() && Foreground::find(token, self.image, self.geometry).is_some()
    }
}

/// Whether the backend can leave out the background of both layers.
const fn can_leave_out<V: Vector, const WINDOWS: usize>() -> bool {
    V::UNROLL && V::PERMUTES && WINDOWS >= MOST_POOLED
}

/// NaN stays NaN.
fn at_least(floor: f32, value: f32) -> f32 {
    if value < floor { floor } else { value }
}

/// Adds to the sums what the foreground of an image makes of them; `false` if that is not worth it.
#[allow(unreachable_pub, reason = "the sealed half of `pack::Weight` names it")]
pub struct ThenDenseKernel<'a, W> {
    layers: &'a ThenDense<'a, W>,
    image: &'a [f32],
    background: &'a [f32; MAX_FILTERS + PANEL],
    room: &'a mut [f32],
    sums: &'a mut [f32; PANEL],
}

impl<W: Weight> Kernel for ThenDenseKernel<'_, W> {
    type Output = bool;

    #[inline(always)]
    fn run<V: Vector, const ROWS: usize, const COLUMNS: usize, const SINGLE: usize, const WINDOWS: usize>(
        self,
        token: V::Token,
    ) -> bool {
        let Self { layers, image, background, room, sums } = self;
        let ThenDense { geometry, filters, activation, floor, dense } = *layers;
        if !can_leave_out::<V, WINDOWS>() {
            return false;
        }
        let Some(foreground) = Foreground::find(token, image, &geometry) else { return false };
        let len = filters.outputs();
        let conv = Sums { x: Inputs::plain(image), geometry, token, floor, filters: len };
        for rows in foreground.parts() {
            let part = foreground.part(token, rows);
            let numbers = part.foreground.numbers();
            // Those outputs are stored next to each other, so that they stay in the first-level cache.
            let next_to_each_other = ASCENDING.get(..numbers.len()).unwrap_or_default();
            let mut first = 0;
            if COLUMNS > 1 {
                while let Some(columns) = filters.columns::<2>(V::LANES, first, len) {
                    conv.part::<V, W, WINDOWS, 2>(&columns, &part, next_to_each_other, room);
                    first += 2 * V::LANES;
                }
            }
            while let Some(columns) = filters.columns::<1>(V::LANES, first, len) {
                conv.part::<V, W, WINDOWS, 1>(&columns, &part, next_to_each_other, room);
                first += V::LANES;
            }
            let made = room.get_mut(..numbers.len() * len).unwrap_or_default();
            activate::<V>(token, activation, core::iter::once(made));
            let groups = Groups { values: room, numbers, less: background, len };
            if !accumulate_groups::<V, W>(token, &groups, dense.weights(), dense.outputs(), sums) {
                return false;
            }
        }
        true
    }
}

/// The first numbers.
static ASCENDING: [u16; PART] = {
    let mut numbers = [0; PART];
    let mut index = 0;
    while index < PART {
        numbers[index] = index as u16;
        index += 1;
    }
    numbers
};
