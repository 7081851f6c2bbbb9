use super::*;
use crate::mistakes;
use scraper::{Html, Selector};
use thumbnet::AlignedBuf;
use thumbnet::blob::{ModelSpec, Tensors, encode, encoded_len};
use thumbnet::layer::{Activation, Conv2d, Dense, InputSpec, Layer, WeightType};

/// The file of a model with weights that count up.
fn file(input: Shape, layers: &[Layer]) -> AlignedBuf {
    let spec = ModelSpec { input: InputSpec { shape: input, scale: 1.0 / 255.0, offset: 0.0 }, labels: &[], layers };
    let mut shape = input;
    let mut weights: Vec<Vec<f32>> = Vec::new();
    for layer in layers {
        let inputs = match layer {
            Layer::Conv2d(conv) => {
                usize::from(conv.kernel[0]) * usize::from(conv.kernel[1]) * usize::from(shape.channels)
            }
            _ => shape.elements().unwrap() as usize,
        };
        shape = layer.output(shape).unwrap();
        if layer.weight_type().is_some() {
            weights.push((0..inputs * usize::from(shape.channels)).map(|i| i as f32 % 7.0 - 3.0).collect());
        }
    }
    let tensors: Vec<Tensors<'_>> = weights.iter().map(|weights| Tensors { weights, bias: &[] }).collect();
    let mut file = AlignedBuf::zeroed(encoded_len(&spec).unwrap());
    encode(&spec, &tensors, &mut file).unwrap();
    file
}

fn dense(outputs: u16) -> Layer {
    Layer::Dense(Dense { outputs, activation: Activation::None, weights: WeightType::F32 })
}

fn conv(filters: u16, kernel: [u8; 2]) -> Layer {
    Layer::Conv2d(Conv2d {
        filters,
        kernel,
        stride: [1, 1],
        padding: Default::default(),
        pool: [1, 1],
        activation: Activation::Relu,
        weights: WeightType::F32,
    })
}

/// A report on three examples, one of them right, by a model with two classes of awkward names.
fn page(input: Shape, layers: &[Layer]) -> String {
    let file = file(input, layers);
    let model = Model::load(&file).unwrap();
    let values: Vec<u8> = (0..3 * model.input_len()).map(|index| (index * 37 % 256) as u8).collect();
    let evaluation = Evaluation {
        accuracy: 1.0 / 3.0,
        loss: 0.5,
        images: 3,
        correct: 1,
        per_class: vec![0.5, 0.0],
        confusion: vec![vec![1, 1], vec![1, 0]],
    };
    let epoch = |epoch| Epoch {
        epoch,
        train_loss: Some(1.0 / f64::from(epoch)),
        train_accuracy: 0.5,
        test_accuracy: Some(0.4),
        ..Epoch::default()
    };
    Report {
        title: "<b>&\"run\"",
        recipe: Some("description = \"a < b\"\n[[layers]]"),
        history: &[epoch(1), epoch(2)],
        training_time: Some(Duration::from_secs(75)),
        models: std::slice::from_ref(&model),
        file_bytes: file.len(),
        scratch_bytes: model.scratch_bytes(),
        classes: &["<i>&".to_owned(), "'one'".to_owned()],
        evaluation: &evaluation,
        examples: Examples { values: Input::U8(&values), shape: input },
        mistakes: &mistakes::worst(&[0.9, 0.1, 0.2, 0.8, 0.75, 0.25], &[0u8, 0, 1], 2, MISTAKES),
    }
    .html()
}

fn texts(page: &Html, selector: &str) -> Vec<String> {
    page.select(&Selector::parse(selector).unwrap()).map(|element| element.text().collect()).collect()
}

fn attributes<'a>(page: &'a Html, selector: &str, name: &str) -> Vec<&'a str> {
    page.select(&Selector::parse(selector).unwrap()).filter_map(|element| element.attr(name)).collect()
}

#[test]
fn the_page_says_what_it_was_given() {
    let text = page(Shape::new(5, 4, 1), &[conv(2, [3, 2]), dense(2)]);
    let page = Html::parse_document(&text);
    assert_eq!(page.errors, [""; 0]);
    assert_eq!(texts(&page, "h1"), ["<b>&\"run\""]);
    assert_eq!(texts(&page, "pre"), ["description = \"a < b\"\n[[layers]]"]);
    assert_eq!(texts(&page, "b, i"), [""; 0], "names are no markup");
    let figures = texts(&page, ".figures dd");
    assert_eq!(figures[0], "33.33 % 2 of 3 wrong");
    assert_eq!(figures[1], "52");
    assert_eq!(figures[5], "1 min 15 s 2 epochs");
    assert_eq!(texts(&page, ".confusion thead th"), ["", "<i>&", "'one'"]);
    assert_eq!(texts(&page, ".confusion td"), ["1", "1", "1", ""]);
    assert_eq!(attributes(&page, ".confusion .right", "style"), ["--strength:50%", "--strength:0%"]);
    let mistakes = texts(&page, "figcaption");
    assert_eq!(mistakes, ["'one' 80.00 %is <i>& 20.00 %image 1", "<i>& 75.00 %is 'one' 25.00 %image 2"]);
    assert_eq!(texts(&page, "tbody tr td:nth-child(4)").last().map(String::as_str), Some("2"));
    let chart = texts(&page, ".charts text");
    assert!(chart.iter().any(|text| text.trim() == "loss"), "{chart:?}");
    // Two mistakes and two kernels.
    assert_eq!(attributes(&page, "figure img", "width"), ["4", "4", "2", "2"]);
}

#[test]
fn the_page_needs_nothing_else() {
    let text = page(Shape::new(5, 4, 3), &[conv(2, [3, 2]), dense(2)]);
    assert!(!text.replace("xmlns=\"http://www.w3.org/2000/svg\"", "").contains("://"));
    assert!(
        !text.contains("<script") && !text.contains("<link") && !text.contains("@import") && !text.contains("url(")
    );
    let page = Html::parse_document(&text);
    let sources = attributes(&page, "[src]", "src");
    assert!(sources.len() == 4 && sources.iter().all(|source| source.starts_with("data:image/png;base64,")));
    assert!(attributes(&page, "[href]", "href").is_empty());
}

#[test]
fn signals_and_their_kernels_are_lines() {
    let text = page(Shape::new(1, 30, 2), &[conv(3, [1, 5]), dense(2)]);
    let page = Html::parse_document(&text);
    assert_eq!(page.errors, [""; 0]);
    assert!(attributes(&page, "img", "src").is_empty());
    assert_eq!(attributes(&page, ".tiles:not(.kernels) .signal polyline", "points").len(), 4);
    assert_eq!(attributes(&page, ".kernels .signal polyline", "points").len(), 6);
}

#[test]
fn many_kernels_are_cut_short_and_large_matrices_left_out() {
    let text = page(Shape::new(6, 6, 1), &[dense(100), dense(2)]);
    let page = Html::parse_document(&text);
    assert_eq!(attributes(&page, ".kernels img", "width"), ["6"; 64]);
    assert!(text.contains("The first 64 of 100."));
    let file = file(Shape::flat(1), &[dense(41)]);
    let model = Model::load(&file).unwrap();
    let evaluation = Evaluation {
        accuracy: 0.0,
        loss: 0.0,
        images: 0,
        correct: 0,
        per_class: vec![0.0; 41],
        confusion: vec![vec![0; 41]; 41],
    };
    let bare = Report {
        title: "bare",
        recipe: None,
        history: &[],
        training_time: None,
        models: std::slice::from_ref(&model),
        file_bytes: file.len(),
        scratch_bytes: model.scratch_bytes(),
        classes: &(0..41).map(|class| class.to_string()).collect::<Vec<_>>(),
        evaluation: &evaluation,
        examples: Examples { values: Input::F32(&[]), shape: Shape::flat(1) },
        mistakes: &[],
    };
    let page = Html::parse_document(&bare.html());
    assert_eq!(texts(&page, "h2"), ["Classes", "Worst mistakes", "Network"]);
    assert!(texts(&page, ".confusion").is_empty());
}

#[test]
fn figures_are_rounded_honestly() {
    assert_eq!([1.0, 0.99999, 0.9785, 0.0].map(percent), ["100.00 %", "99.99 %", "97.85 %", "0.00 %"]);
    let times = [1.25, 75.4, 7_322.0].map(Duration::from_secs_f64).map(duration);
    assert_eq!(times, ["1.2 s", "1 min 15 s", "2 h 02 min"]);
    assert_eq!([0, 1, 2].map(epochs), ["", "1 epoch", "2 epochs"]);
}
