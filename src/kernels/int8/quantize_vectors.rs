//! From f32 values, or bytes, to int8 activations, over the vectors of a backend.

use super::quantize::Source;
use super::vector::Int8Vector;
use crate::kernels::backend::Backend;
use crate::kernels::backend::int8::Int8Kernel;
use crate::layer::Quantize;

/// Writes the activations to `out`, as many as there are and fit: [`Source::read`] with the backend's vectors.
#[inline(never)]
pub(crate) fn quantize(backend: Backend, source: Source<'_>, out: &mut [i8]) {
    backend.dispatch_int8(QuantizeKernel { source, out });
}

struct QuantizeKernel<'a> {
    source: Source<'a>,
    out: &'a mut [i8],
}

impl Int8Kernel for QuantizeKernel<'_> {
    #[inline(always)]
    fn run<
        V: Int8Vector,
        const ROWS: usize,
        const COLUMNS: usize,
        const SINGLE: usize,
        const CHAINS: usize,
        const WINDOWS: usize,
    >(
        self,
        token: V::Token,
    ) {
        let parts = self.out.chunks_mut(V::LANES);
        match self.source {
            Source::Int8(_) | Source::Within(_) => self.source.read(0, self.out),
            Source::F32(values, &Quantize { inverse_scale, .. }) => {
                for (values, out) in values.chunks(V::LANES).zip(parts) {
                    V::load_nearest(token, values, inverse_scale).store_int8(out);
                }
            }
            Source::Bytes(bytes, &Quantize { byte_multiplier, byte_offset, .. }) => {
                let factor = V::splat(token, byte_multiplier.cast_signed());
                let offset = V::splat(token, byte_offset.wrapping_add(1 << 15));
                for (bytes, out) in bytes.chunks(V::LANES).zip(parts) {
                    let steps = V::load_bytes(token, bytes).mul(factor).add(offset).shift_right_by::<16>();
                    steps.max(V::splat(token, -127)).min(V::splat(token, 127)).store_int8(out);
                }
            }
        }
    }
}
