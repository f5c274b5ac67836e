//! Pages of invented runs: small and large, with names that try to break out.

use super::super::{Facts, Mistake, picture};
use crate::train::config::TrainConfig;
use crate::train::engine::ImageResult;
use crate::train::metrics::{EpochLine, MetricsLine, StepLine};
use crate::train::predict::{Evaluation, Prediction};
use crate::train::sessions::Session;

/// Every fourth image of a class is taken for the next one.
fn predictions(classes: usize, images_per_class: usize) -> Vec<Prediction> {
    (0..classes * images_per_class)
        .map(|image| {
            let label = image / images_per_class;
            let is_wrong = image % 4 == 3;
            let predicted = if is_wrong { (label + 1) % classes } else { label };
            let confidence = 0.5 + 0.4 * (image % 10) as f32 / 10.0;
            let result = ImageResult { loss: if is_wrong { 2.0 } else { 0.3 }, rank: usize::from(is_wrong), predicted, confidence };
            Prediction { image: image as u32, label: label as u32, result }
        })
        .collect()
}

fn facts(classes: usize, epochs: u64) -> Facts {
    let predictions = predictions(classes, 12);
    let mut lines = vec![MetricsLine::Step(StepLine { step: 5, epoch: 1, loss: 2.0, lr: 0.1, images_per_s: 300.0 })];
    lines.extend((1..=epochs).map(|epoch| {
        let test_acc = if epoch == 2 { 0.9 } else { 0.75 };
        MetricsLine::Epoch(EpochLine {
            epoch,
            train_loss: 1.0,
            train_acc: 0.7,
            test_loss: 1.1,
            test_acc,
            seconds: 12.0,
            ..Default::default()
        })
    }));
    Facts {
        config: TrainConfig::defaults("nin-small").unwrap(),
        config_text: "# nin-wgpu train --data '<a & b>'\nmodel = \"nin-small\"\n".into(),
        data: "my pictures".into(),
        sessions: vec![Session { command: "nin-wgpu train --data '<a & b>'".into(), adapter: "llvmpipe".into(), ..Default::default() }],
        lines,
        steps_per_epoch: 10,
        images: [320, predictions.len()],
        parameters: 71_274,
        classes: (0..classes).map(|class| format!("class {class}")).collect(),
        weights: "best.safetensors".into(),
        evaluation: Some(Evaluation::of(&predictions, classes)),
        mistakes: vec![Mistake { image: 3, prediction: predictions[3], picture: picture::thumbnail(&[9; 12], [3, 2, 2]) }],
        filters: vec![picture::filter(&[1.0, -1.0], [1, 1, 2]); 3],
        filter_shape: [1, 1, 2],
    }
}

/// The page, with every tag closed in order, nothing from outside and no number that is none.
fn checked(facts: &Facts) -> String {
    let page = facts.page();
    for forbidden in ["http:", "https:", "//www", "<script", "NaN", "inf %", "url("] {
        assert!(!page.contains(forbidden), "{forbidden} in the page");
    }
    for address in page.split("src=\"").skip(1).chain(page.split("href=\"").skip(1)) {
        assert!(address.starts_with("data:") || address.starts_with('#'), "{}", &address[..40]);
    }
    let mut open = Vec::new();
    let body = &page[page.find("<body>").unwrap()..page.find("</body>").unwrap()];
    for tag in body.split('<').skip(1) {
        let name: String = tag.chars().take_while(|c| c.is_alphanumeric() || *c == '/').collect();
        let end = tag.find('>').unwrap_or_else(|| panic!("<{tag} has no end"));
        if let Some(closed) = name.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(closed), "closing {tag}");
        } else if !tag[..end].ends_with('/') && !["img", "br"].contains(&name.as_str()) {
            open.push(name);
        }
    }
    assert_eq!(open, ["body"]);
    page
}

#[test]
fn a_page_says_what_there_is_to_say() {
    let page = checked(&facts(10, 3));
    for text in [
        "<h1>nin-small on my pictures</h1>",
        "71,274 parameters, trained on 320 images of 10 classes, tested on 120.",
        "<dd>75.00 %<small>best epoch, 2 of",
        "90 of 120 images",
        "<svg viewBox",
        "class 3 taken for class 4: 3 of 12, 25.00 %",
        "<b>class 0</b><br>taken for class 1, <span class=\"whole\">62.00 %</span>",
        "All 3 filters of 1x1x2.",
        "model = &quot;nin-small&quot;",
        "<td>llvmpipe ()</td>",
    ] {
        assert!(page.contains(text), "{text}\n{page}");
    }
    assert_eq!(page.matches("class=\"hit").count(), 10);
    assert_eq!(page.matches("class=\"best\"").count(), 1);
}

#[test]
fn pages_fit_any_number_of_classes() {
    let two = checked(&facts(2, 1));
    assert!(two.contains("class=\"confusion\"") && !two.contains("Top 5 accuracy"));
    assert!(checked(&facts(40, 1)).contains("class=\"confusion\""));
    let many = checked(&facts(41, 1));
    assert!(!many.contains("class=\"confusion\"") && many.contains("class=\"matrix\"") && many.contains("The commonest"));
    assert!(many.contains("20 classes with the lowest F1") && many.contains("All 41 classes"));
    let thousand = checked(&facts(1000, 1));
    assert!(thousand.contains("All 1,000 classes") && thousand.len() < 1_500_000, "{} bytes", thousand.len());
}

#[test]
fn names_cannot_break_out() {
    let mut facts = facts(3, 1);
    let name = "</th><script>alert(\"1\")</script> ".to_string() + &"very ".repeat(40);
    (facts.classes[1], facts.data) = (name.clone(), name.clone());
    facts.sessions[0].driver.clone_from(&name);
    facts.config_text = format!("data = '{name}</pre>'");
    let page = checked(&facts);
    assert!(page.contains("&lt;script&gt;alert(&quot;1&quot;)"));
    assert!(page.contains("nin-wgpu train --data &#39;&lt;a &amp; b&gt;&#39;"));
}

#[test]
fn runs_that_measured_little_have_a_page() {
    let mut facts = facts(4, 1);
    facts.evaluation = None;
    facts.mistakes.clear();
    facts.images[1] = 0;
    if let Some(MetricsLine::Epoch(line)) = facts.lines.last_mut() {
        (line.test_loss, line.test_acc) = (f64::NAN, f64::NAN);
    }
    let page = checked(&facts);
    assert!(page.contains("There are no test images") && !page.contains("id=\"classes\"") && page.contains("<td>-</td>"));
    // Stopped before the end of its first epoch, on a machine that nobody noted.
    facts.lines.clear();
    facts.sessions.clear();
    facts.filters.clear();
    let page = checked(&facts);
    assert!(!page.contains("id=\"curves\"") && !page.contains("id=\"machine\"") && !page.contains("id=\"filters\""));
}

#[test]
fn everything_recognised_is_said() {
    let mut facts = facts(50, 2);
    let all_right: Vec<Prediction> = predictions(50, 3).into_iter().filter(|p| p.result.rank == 0).collect();
    facts.evaluation = Some(Evaluation::of(&all_right, 50));
    facts.mistakes.clear();
    assert_eq!(checked(&facts).matches("every test image is recognised").count(), 2);
}
