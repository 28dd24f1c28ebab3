//! Which sources are asked, and where.

use super::*;

/// Where it asks.
fn endpoint(scene: &Scene) -> String {
    first_source(scene).credentials_endpoint().unwrap()
}

#[test]
fn a_source_is_looked_for_unless_one_is_named() {
    let kinds = |text| {
        let settings = scene(text).settings();
        let named = settings.sources.iter().map(|source| source.name().to_string());
        let candidates: BTreeSet<_> = settings.candidates.iter().map(|it| it.source.name().to_string()).collect();
        (named.collect::<Vec<_>>(), candidates)
    };
    let findable = crate::sources::ROWS.iter().filter(|row| row.detection.is_some());
    let findable: BTreeSet<_> = findable.map(|row| row.kind.to_owned()).collect();
    assert_eq!(kinds("#\n"), (vec!["shutdown".to_owned()], findable));
    assert_eq!(kinds("[[source]]\nkind = \"shutdown\"\n"), (vec!["shutdown".to_owned()], BTreeSet::new()));
    assert_eq!(kinds("[[source]]\nkind = \"aws\"\n"), (vec!["aws".to_owned()], BTreeSet::new()));
    let flags = Flags {
        source_keys: vec![("aws".to_owned(), "metadata-endpoint", "http://10.0.0.3".into())],
        ..Flags::default()
    };
    let played = scene("#\n").flags(flags).settings();
    assert_eq!((played.sources.len(), played.candidates.len()), (2, 0), "what is played need not be found");
    assert_eq!(played.sources[1].credentials_endpoint().as_deref(), Some("http://10.0.0.3"));
}

#[test]
fn each_address_of_a_cloud_is_asked_unless_one_is_named() {
    let addresses = |scene: &Scene| {
        let candidates = scene.settings().candidates;
        let aws = candidates.iter().filter(|it| it.source.name().as_str() == "aws");
        aws.map(|it| it.source.credentials_endpoint().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(addresses(&scene("#\n")), ["http://169.254.169.254", "http://[fd00:ec2::254]"]);
    let variable = scene("#\n").set("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://10.0.0.9");
    assert_eq!(addresses(&variable), ["http://10.0.0.9"]);
    assert_eq!(addresses(&scene("metadata-endpoint = \"http://10.0.0.1\"\n")), ["http://10.0.0.1"]);
}

#[test]
fn a_source_of_its_own_stands_between_the_command_line_and_the_rest_of_the_file() {
    let file = "poll-interval = \"4s\"\nmetadata-endpoint = \"http://10.0.0.1/\"\n\
                [[source]]\nkind = \"aws\"\npoll-interval = \"7s\"\nmetadata-endpoint = \"http://10.0.0.2\"\n";
    let interval = |scene: &Scene| scene.settings().policy.sources[0].interval;
    assert_eq!(interval(&scene(file)), Duration::from_secs(7));
    assert_eq!(endpoint(&scene(file)), "http://10.0.0.2");
    let flags = Flags {
        poll_interval: Some("1s".to_owned()),
        metadata_endpoint: Some("http://127.0.0.1:1338/".to_owned()),
        ..Flags::default()
    };
    let typed = scene(file).flags(flags);
    assert_eq!(interval(&typed), Duration::from_secs(1));
    assert_eq!(endpoint(&typed), "http://127.0.0.1:1338");
    assert_eq!(endpoint(&scene("metadata-endpoint = \"http://10.0.0.1/\"\n")), "http://10.0.0.1");
}

#[test]
fn the_variables_of_the_sdks_count_where_nothing_of_ours_says_otherwise() {
    let mode = |file, mode| scene(file).set("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", mode);
    let foreign = |file| mode(file, "IPv6").set("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://10.0.0.9");
    assert_eq!(endpoint(&foreign("#\n")), "http://10.0.0.9");
    assert_eq!(endpoint(&foreign("metadata-endpoint = \"http://10.0.0.1\"\n")), "http://10.0.0.1");
    assert_eq!(endpoint(&mode("#\n", "IPv6")), "http://[fd00:ec2::254]");
    let ours = "[[source]]\nkind = \"aws\"\nmetadata-endpoint-mode = \"ipv4\"\n";
    assert_eq!(endpoint(&mode(ours, "IPv6")), "http://169.254.169.254");
    let said = mode("#\n", "ipv5").refused();
    assert_eq!(said, "source \"aws\": AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE must be IPv4 or IPv6");
    let listed = mode("\n[[source]]\nkind = \"aws\"\n", "ipv5").refused();
    assert_eq!(listed, format!("watchdog.toml:2: {said}"));
}
