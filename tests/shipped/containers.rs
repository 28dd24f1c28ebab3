//! The image and the pod.

use crate::watchdog_configuration::{steps, warns_of_nothing_of_its_own};
use crate::{read, root, text};
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A YAML file's documents, read by a real YAML reader where there is one.
fn yaml(path: &str) -> Option<Vec<serde_json::Value>> {
    let read = |python: &str| {
        Command::new(python)
            .args(["-c", "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))"])
            .arg(root().join(path))
            .output()
            .ok()
    };
    let pythons = [std::env::var("SPOT_TEST_PYTHON").ok(), Some("python3".to_owned())];
    for output in pythons.iter().flatten().filter_map(|python| read(python)) {
        if output.status.success() {
            return Some(serde_json::from_slice(&output.stdout).unwrap());
        }
        assert!(text(&output).contains("No module named"), "{path}: {}", text(&output));
    }
    eprintln!("not tried: no Python with a yaml module; tests/run sets one up");
    None
}

#[test]
fn the_sidecar_governs_readiness_hands_in_the_notice_and_lets_vllm_wait_in_time() {
    let Some(documents) = yaml("config/kubernetes/sidecar.yaml") else { return };
    let kind = |kind: &str| documents.iter().find(|document| document["kind"] == kind).expect("the document is there");
    let pod = &kind("Deployment")["spec"]["template"]["spec"];
    let (sidecar, vllm) = (&pod["initContainers"][0], &pod["containers"][0]);

    // A native sidecar whose readiness is the pod's, that no probe holds up and no blindness restarts.
    assert_eq!(sidecar["restartPolicy"], "Always");
    assert_eq!(sidecar["readinessProbe"]["httpGet"]["path"], "/readyz");
    assert_eq!(sidecar["livenessProbe"]["httpGet"]["path"], "/livez");
    assert!(sidecar["startupProbe"].is_null() && vllm["startupProbe"].is_null());
    assert_eq!(sidecar["securityContext"]["runAsNonRoot"], true);

    // Its own preStop hands the notice in, in words that the command line takes.
    let words: Vec<_> = sidecar["lifecycle"]["preStop"]["exec"]["command"]
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect();
    assert_eq!(words, ["watchdog", "notice", "shutdown", "--window", "85s", "--reason", "pod is being deleted"]);

    // vLLM waits as long as that notice lasts and no longer, then has its own time, then we have ours.
    let wait = vllm["lifecycle"]["preStop"]["exec"]["command"][2].as_str().unwrap();
    assert!(wait.contains("-lt 85 ") && wait.contains("/drain/drained"), "{wait}");
    let arguments: Vec<_> = vllm["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    let own: u64 =
        arguments[arguments.iter().position(|word| *word == "--shutdown-timeout").unwrap() + 1].parse().unwrap();
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(85 + own < grace && grace < 120, "85 + {own} s within {grace} s within a notice");

    // Both see the same file, and every volume that is mounted exists.
    let volumes: BTreeSet<_> =
        pod["volumes"].as_array().unwrap().iter().map(|volume| volume["name"].as_str().unwrap()).collect();
    let mounts = |container: &serde_json::Value| -> Vec<(String, String)> {
        let mounts = container["volumeMounts"].as_array().unwrap().iter();
        mounts
            .map(|mount| (mount["name"].as_str().unwrap().to_owned(), mount["mountPath"].as_str().unwrap().to_owned()))
            .collect()
    };
    let drain = ("drain".to_owned(), "/drain".to_owned());
    assert!(mounts(sidecar).contains(&drain) && mounts(vllm).contains(&drain));
    assert!(mounts(sidecar).iter().chain(&mounts(vllm)).all(|(name, _)| volumes.contains(name.as_str())));

    let configuration = kind("ConfigMap")["data"]["watchdog.toml"].as_str().unwrap();
    warns_of_nothing_of_its_own("the sidecar's configuration", configuration);
    let table: toml::Table = configuration.parse().unwrap();
    assert_eq!(table["listen"].as_str(), Some("0.0.0.0:9189"));
    let step = &steps(configuration)[0];
    let words = |key: &str| step[key].as_str();
    assert_eq!((words("kind"), words("drained")), (Some("drain"), Some("/drain/drained")));
    // Metrics are asked where vLLM serves.
    let port = arguments[arguments.iter().position(|word| *word == "--port").unwrap() + 1];
    assert_eq!(words("metrics"), Some(format!("http://127.0.0.1:{port}/metrics").as_str()));
    let on = steps(configuration)[0]["on"].clone();
    assert!(
        on.as_array().unwrap().iter().any(|kind| kind.as_str() == Some("shutdown")),
        "the pod's deletion is a shutdown"
    );
}

#[test]
fn vllm_waits_for_the_drained_file_and_not_for_one_of_another_time() {
    let Some(documents) = yaml("config/kubernetes/sidecar.yaml") else { return };
    let deployment = documents.iter().find(|document| document["kind"] == "Deployment").unwrap();
    let script = &deployment["spec"]["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][2];
    let directory = TempDir::new().unwrap();
    let drained = directory.path().join("drained");
    let script =
        script.as_str().unwrap().replace("/drain/drained", &drained.display().to_string()).replace("-lt 85", "-lt 3");
    let took = || {
        let began = Instant::now();
        assert!(Command::new("/bin/sh").args(["-c", &script]).status().unwrap().success());
        began.elapsed()
    };
    assert!(took() >= Duration::from_secs(3), "bounded, and no shorter, without the file");
    fs::write(&drained, "").unwrap();
    assert!(took() < Duration::from_secs(1), "at once with it");
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(600);
    fs::File::options().write(true).open(&drained).unwrap().set_modified(long_ago).unwrap();
    assert!(took() >= Duration::from_secs(3), "an old one is not believed");
}

/// A Dockerfile's instructions, with continued lines joined.
fn instructions() -> Vec<(String, String)> {
    let joined =
        read("Dockerfile").lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n");
    let joined = joined.replace("\\\n", " ");
    let words = |line: &str| line.split_once(' ').map(|(word, rest)| (word.to_owned(), rest.trim().to_owned()));
    joined
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| words(line).expect("an instruction has arguments"))
        .collect()
}

#[test]
fn the_image_is_small_not_root_and_asks_itself_how_it_is() {
    let instructions = instructions();
    let all = |word: &str| {
        instructions.iter().filter(|(name, _)| name == word).map(|(_, rest)| rest.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(
        all("FROM"),
        ["rust:1.95-bookworm AS build", "debian:bookworm-slim"],
        "built in one stage, run in another"
    );
    let wanted: toml::Table = read("Cargo.toml").parse().unwrap();
    let rust = wanted["package"]["rust-version"].as_str().unwrap();
    assert!(all("FROM")[0].starts_with(&format!("rust:{rust}-")));
    assert_eq!(all("USER"), ["10001"], "a number, and not root's");
    let health = all("HEALTHCHECK")[0];
    assert!(health.contains(r#"CMD ["watchdog", "status", "--probe", "livez"]"#), "{health}");
    // Without a shell in between, so that it is PID 1 and gets the signals.
    assert_eq!(all("ENTRYPOINT"), [r#"["/usr/local/bin/watchdog"]"#]);
    let last = instructions.iter().rposition(|(name, _)| name == "FROM").unwrap();
    assert!(instructions[last..].iter().any(|(name, _)| name == "USER"));
}

/// Whether the watchdog's command line has these words. Nothing runs that they could reach.
fn is_understood(words: &[String]) {
    let nowhere = TempDir::new().unwrap();
    assert_eq!(words[0], "watchdog");
    let output = Command::new(env!("CARGO_BIN_EXE_watchdog"))
        .args(&words[1..])
        .env("STATE_DIRECTORY", nowhere.path())
        .env("SPOT_WATCHDOG_LISTEN", "127.0.0.1:9")
        .env("SPOT_TEST_ROOT", nowhere.path())
        .output()
        .unwrap();
    assert_ne!(output.status.code(), Some(64), "{words:?}: {}", text(&output));
}

#[test]
fn the_commands_that_the_image_and_the_pod_run_are_understood() {
    let instructions = instructions();
    let (_, health) = instructions.iter().find(|(name, _)| name == "HEALTHCHECK").unwrap();
    is_understood(&serde_json::from_str::<Vec<String>>(health.split_once("CMD ").unwrap().1).unwrap());
    let Some(documents) = yaml("config/kubernetes/sidecar.yaml") else { return };
    let deployment = documents.iter().find(|document| document["kind"] == "Deployment").unwrap();
    let sidecar = &deployment["spec"]["template"]["spec"]["initContainers"][0];
    is_understood(
        &serde_json::from_value::<Vec<String>>(sidecar["lifecycle"]["preStop"]["exec"]["command"].clone()).unwrap(),
    );
}

#[test]
fn whatever_the_image_copies_exists_and_is_let_through_by_dockerignore() {
    let ignore = read(".dockerignore");
    let let_through: BTreeSet<_> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert!(ignore.lines().any(|line| line == "*"));
    let mut copied = BTreeSet::new();
    for (_, rest) in instructions().iter().filter(|(name, rest)| name == "COPY" && !rest.starts_with("--from")) {
        let words: Vec<_> = rest.split_whitespace().collect();
        for source in &words[..words.len() - 1] {
            assert!(root().join(source).exists(), "COPY {source}");
            let top = source.split('/').next().unwrap();
            assert!(let_through.contains(top), ".dockerignore keeps {source} out");
            copied.insert(top.to_owned());
        }
    }
    assert_eq!(copied, let_through.iter().map(|&name| name.to_owned()).collect(), "nothing more than is copied");
}
