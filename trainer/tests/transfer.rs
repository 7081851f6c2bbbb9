//! A training that begins with the layers of a trained model, and one that learns from a model's answers.

use thumbnet::layer::Shape;
use thumbnet::{AlignedBuf, Model};
use thumbnet_trainer::data::DataSet;
use thumbnet_trainer::distill::Teacher;
use thumbnet_trainer::export::export_trained;
use thumbnet_trainer::recipe::{Distill, Recipe};
use thumbnet_trainer::train::{Training, train};
use thumbnet_trainer::{batches, evaluate};

fn recipe(classes: usize, more: &str) -> Recipe {
    let text = format!(
        "description = \"test\"\nseed = 2\nepochs = 6\nbatch = 20\nmicro_batch = 10\nlearning_rate = 0.02\n
         loss = \"cross-entropy\"\nshuffle = true\n{more}\n[optimizer]\ntype = \"adam\"
         [[layers]]\ntype = \"conv2d\"\nfilters = 4\nkernel = [3, 3]\nbatch_norm = true\nactivation = \"relu\"\ninit = \"he-normal\"
         [[layers]]\ntype = \"max-pool2d\"\nkernel = [2, 2]
         [[layers]]\ntype = \"dense\"\noutputs = 12\nbatch_norm = true\nactivation = \"relu\"\ninit = \"he-normal\"
         [[layers]]\ntype = \"dense\"\noutputs = {classes}\ninit = \"glorot-uniform\"\n"
    );
    Recipe::parse("test", &text).unwrap()
}

/// Which third of the picture is bright is its class; with two classes, whether it is the middle one.
fn pictures(count: usize, classes: usize) -> DataSet {
    let pixel = |index: usize, place: usize| {
        let bright = place % 9 / 3 == index % 3;
        (usize::from(bright) * 180 + (index * 31 + place * 17) % 70) as u8
    };
    let pixels = (0..count).flat_map(|index| (0..72).map(move |place| pixel(index, place))).collect();
    let label = |index: usize| if classes == 2 { usize::from(index % 3 == 1) } else { index % 3 };
    let labels = (0..count).map(|index| label(index) as u16).collect();
    let names = (0..classes).map(|class| format!("class {class}")).collect();
    DataSet::of_pixels(pixels, labels, Shape::new(8, 9, 1), names)
}

fn accuracy(file: &AlignedBuf, data: &DataSet) -> f64 {
    evaluate::evaluate(&Model::load(file).unwrap(), data, batches::cores()).unwrap().accuracy
}

fn weights(model: &Model<'_>, tensor: usize) -> Vec<f32> {
    let tensor = model.tensors().nth(tensor).unwrap();
    (0..tensor.inputs())
        .flat_map(|i| (0..tensor.outputs()).map(move |o| (i, o)))
        .map(|(i, o)| tensor.weight(i, o).unwrap())
        .collect()
}

fn body() -> AlignedBuf {
    let (recipe, images) = (recipe(3, ""), pictures(150, 3));
    let trained = train(&recipe, &images, &pictures(30, 3), &mut ()).unwrap();
    let file = export_trained(&trained, &recipe, &images).unwrap();
    assert!(accuracy(&file, &pictures(30, 3)) > 0.9);
    file
}

#[test]
fn a_frozen_body_keeps_its_weights_and_a_new_head_learns_other_classes() {
    let file = body();
    let body = Model::load(&file).unwrap();
    let (recipe, images, test) = (recipe(2, ""), pictures(150, 2), pictures(30, 2));
    let mut training = Training::new(&recipe, &images, &test).unwrap();
    assert_eq!(training.start_from(&body, 1), Ok(2));
    let trained = training.run(&mut ()).unwrap();
    let made = export_trained(&trained, &recipe, &images).unwrap();
    let model = Model::load(&made).unwrap();
    assert_eq!(model.output_len(), 2);
    assert_eq!(weights(&model, 0), weights(&body, 0), "frozen");
    assert_eq!(
        Training::new(&self::recipe(3, ""), &pictures(60, 3), &pictures(30, 3)).unwrap().start_from(&body, 0),
        Ok(3)
    );
    let renamed = DataSet { classes: ["a", "b", "c"].map(str::to_owned).to_vec(), ..pictures(60, 3) };
    assert_eq!(
        Training::new(&self::recipe(3, ""), &renamed, &renamed).unwrap().start_from(&body, 0),
        Ok(2),
        "other classes"
    );
    assert_ne!(weights(&model, 1), weights(&body, 1), "taken over, and trained on");
    assert!(accuracy(&made, &test) > 0.9);
}

#[test]
fn a_body_that_does_not_fit_is_refused() {
    let file = body();
    let body = Model::load(&file).unwrap();
    let (images, test) = (pictures(60, 2), pictures(30, 2));
    let begin = |recipe: &Recipe, frozen| Training::new(recipe, &images, &test).unwrap().start_from(&body, frozen);
    assert!(begin(&recipe(2, ""), 3).unwrap_err().contains("3 layers are to be frozen, but only the first 2"));
    let text = recipe(2, "").to_toml().replace("filters = 4", "filters = 5");
    assert!(begin(&Recipe::parse("other", &text).unwrap(), 0).unwrap_err().contains("begins with conv2d"));
    let wide = DataSet::of_pixels(vec![0; 81], vec![0], Shape::new(9, 9, 1), images.classes.clone());
    let recipe = recipe(2, "");
    let refused = Training::new(&recipe, &wide, &wide).unwrap().start_from(&body, 0).unwrap_err();
    assert!(refused.contains("8x9x1") && refused.contains("9x9x1"), "{refused}");
}

/// The labels are wrong throughout: what is right, the network can only have from its teacher.
#[test]
fn a_network_learns_from_its_teacher() {
    let file = body();
    let body = Model::load(&file).unwrap();
    let (recipe, mut images, test) = (recipe(3, ""), pictures(150, 3), pictures(30, 3));
    images.labels.iter_mut().for_each(|label| *label = (*label + 1) % 3);
    let distill = Distill { from: "body".to_owned(), temperature: 2.0, weight: 1.0 };
    let mut training = Training::new(&recipe, &images, &test).unwrap();
    training.learn_from(Teacher::new(&body, &distill, &images).unwrap());
    let trained = training.run(&mut ()).unwrap();
    assert!(accuracy(&export_trained(&trained, &recipe, &images).unwrap(), &test) > 0.9);
    let alone = train(&recipe, &images, &test, &mut ()).unwrap();
    assert!(accuracy(&export_trained(&alone, &recipe, &images).unwrap(), &test) < 0.1);

    assert!(Teacher::new(&body, &distill, &pictures(3, 2)).unwrap_err().contains("knows 3 classes, but there are 2"));
}
