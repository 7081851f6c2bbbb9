//! The weights that look at the input directly, each output's in the shape of what it looks at.

use super::pictures::Tile;
use thumbnet::blob::PackedTensor;
use thumbnet::layer::{Layer, Shape};
use thumbnet::{LayerInfo, Model};

/// More of them say nothing more.
const MOST: usize = 64;

/// The kernels of a layer.
pub(super) struct Kernels {
    /// How many there are.
    pub(super) count: usize,
    /// Of up to [`MOST`].
    pub(super) shown: Vec<Tile>,
}

impl Kernels {
    /// How to read the pictures.
    pub(super) fn legend(&self) -> &'static str {
        match self.shown.first().map(|tile| tile.shape) {
            Some(Shape { height: 1, .. } | Shape { width: 1, .. }) => "A line for each channel.",
            Some(Shape { channels: 3, .. }) => "Red, green and blue as they are looked for; grey is 0.",
            _ => "Blue is positive, orange is negative, white is 0; each has a scale of its own.",
        }
    }
}

/// Of the first layer with weights; `None` if they are single numbers, which make no picture.
pub(super) fn of_first_layer(model: &Model<'_>) -> Option<Kernels> {
    let info = model.layers().find(|info| info.layer.weight_type().is_some())?;
    let shape = window(&info).filter(|shape| shape.elements().is_some_and(|count| count > 2))?;
    let tensor = model.tensors().next()?;
    let tiles = (0..tensor.outputs().min(MOST)).map(|output| tile(&tensor, shape, output));
    Some(Kernels { count: tensor.outputs(), shown: tiles.collect::<Option<_>>()? })
}

/// What one output looks at.
fn window(info: &LayerInfo) -> Option<Shape> {
    let sides = |[height, width]: [u8; 2], channels| Shape::new(height.into(), width.into(), channels);
    match info.layer {
        Layer::Conv2d(conv) => Some(sides(conv.kernel, info.input.channels)),
        Layer::DepthwiseConv2d(conv) => Some(sides(conv.kernel, 1)),
        Layer::Dense(_) => Some(info.input),
        _ => None,
    }
}

fn tile(tensor: &PackedTensor<'_>, shape: Shape, output: usize) -> Option<Tile> {
    let values = (0..tensor.inputs()).map(|input| tensor.weight(input, output)).collect::<Option<_>>()?;
    Some(Tile { shape, values })
}
