//! From f32 values, or bytes, to int8 activations, over the vectors of a backend.

use super::quantize::Source;
use super::vector::Int8Vector;
use crate::kernels::backend::Backend;
use crate::kernels::backend::int8::Int8Kernel;
use crate::layer::Quantize;

/// Writes the activations to `out`, as many as there are and fit: [`Source::read`] with the backend's vectors.
#[inline(never)]
pub(crate) fn quantize(backend: Backend, source: Source<'_>, out: &mut [i8]) {
    match source {
        Source::Int8(_) | Source::Within(_) => source.read(0, out),
        Source::F32(values, &Quantize { inverse_scale, .. }) => {
            let len = values.len().min(out.len());
            if let (Some(values), Some(out)) = (values.get(..len), out.get_mut(..len)) {
                backend.dispatch_int8(F32Kernel { values, inverse_scale, out });
            }
        }
        Source::Bytes(bytes, &quantize) => backend.dispatch_int8(BytesKernel { bytes, quantize, out }),
    }
}

/// As many values as outputs.
struct F32Kernel<'a> {
    values: &'a [f32],
    inverse_scale: f32,
    out: &'a mut [i8],
}

impl Int8Kernel for F32Kernel<'_> {
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
        let (blocks, values) = self.values.as_chunks();
        let (out_blocks, out) = self.out.as_chunks_mut();
        for (values, out) in blocks.iter().zip(out_blocks) {
            V::quantize_block(token, values, self.inverse_scale, out);
        }
        for (values, out) in values.chunks(V::LANES).zip(out.chunks_mut(V::LANES)) {
            V::load_nearest(token, values, self.inverse_scale).store_int8(out);
        }
    }
}

struct BytesKernel<'a> {
    bytes: &'a [u8],
    quantize: Quantize,
    out: &'a mut [i8],
}

impl Int8Kernel for BytesKernel<'_> {
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
        let Quantize { byte_multiplier, byte_offset, .. } = self.quantize;
        let factor = V::splat(token, byte_multiplier.cast_signed());
        let offset = V::splat(token, byte_offset.wrapping_add(1 << 15));
        for (bytes, out) in self.bytes.chunks(V::LANES).zip(self.out.chunks_mut(V::LANES)) {
            let steps = V::load_bytes(token, bytes).mul(factor).add(offset).shift_right_by::<16>();
            steps.max(V::splat(token, -127)).min(V::splat(token, 127)).store_int8(out);
        }
    }
}
