//! Credentials from each place that the SDK knows and that can be had without a cloud, taken by the real binary.

use crate::daemon::{Cloud, Scene};
use crate::live::serve_api;
use spot_watchdog::emulators::service::Script;

#[test]
fn credentials_are_taken_from_every_place_where_the_sdk_looks() {
    let (api, _serving) = serve_api();
    let (cloud, scene) = (Cloud::playing(Script::default()), Scene::new());
    let configuration = scene.write(
        "watchdog.toml",
        &format!(
            "[[step]]\nname = \"leave\"\nkind = \"target-group\"\nendpoint-url = \"{}\"\n\
             target-groups = [\"arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/llm/73e2d6bc24d8a067\"]\n",
            api.url
        ),
    );
    let token = scene.write("token", "pod-token");
    let process = scene.write(
        "process.json",
        r#"{ "Version": 1, "AccessKeyId": "AKIDPROCESS", "SecretAccessKey": "secret", "SessionToken": "session" }"#,
    );
    let profiles = scene.write(
        "credentials",
        &format!(
            "[default]\naws_access_key_id = AKIDPROFILE\naws_secret_access_key = secret\n\
             [process]\ncredential_process = cat {}\n",
            process.display()
        ),
    );
    let (token, profiles) = (token.to_str().unwrap(), profiles.to_str().unwrap());
    let container = format!("{}/container", api.url);
    let places: [(&str, &[(&str, &str)]); 6] = [
        ("AKIDENVIRONMENT", &[("AWS_ACCESS_KEY_ID", "AKIDENVIRONMENT"), ("AWS_SECRET_ACCESS_KEY", "secret")]),
        ("AKIDPROFILE", &[("AWS_SHARED_CREDENTIALS_FILE", profiles)]),
        ("AKIDPROCESS", &[("AWS_SHARED_CREDENTIALS_FILE", profiles), ("AWS_PROFILE", "process")]),
        (
            "AKIDCONTAINER",
            &[
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", container.as_str()),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token),
            ],
        ),
        (
            "AKIDWEBIDENTITY",
            &[
                ("AWS_WEB_IDENTITY_TOKEN_FILE", token),
                ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/llm"),
                ("AWS_ENDPOINT_URL_STS", api.url.as_str()),
            ],
        ),
        ("ASIAEMULATED", &[]),
    ];
    for (key, variables) in places {
        api.requests();
        let path = configuration.to_str().unwrap();
        let mut check = scene.command(&["check", "--metadata-endpoint", &cloud.url, "--config", path]);
        check.args(["--state-dir", scene.state().to_str().unwrap(), "--listen", "off"]);
        let said = check.envs(variables.iter().copied()).output().unwrap();
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let requests = api.requests();
        let asked = requests.iter().find(|request| request.contains("Action=DescribeTargetHealth&"));
        let used = asked.and_then(|request| request.split(' ').next()).unwrap_or_default();
        assert!(used.starts_with(key), "{key}: asked with {used:?}\n{said}");
    }
}
