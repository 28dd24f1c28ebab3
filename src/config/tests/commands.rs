//! What the command line stands for, and what paths and commands are relative to.

use super::*;

#[test]
fn with_a_hook_the_usual_file_is_not_read_and_a_named_one_is() {
    let file = "[[step]]\nname = \"save_checkpoint\"\nkind = \"hook\"\ncommand = [\"/x\"]\n";
    let names =
        |scene: &Scene| scene.settings().steps.iter().map(|step| step.name.to_string()).collect::<Vec<_>>().join(" ");
    let alone = scene(file).flags(hooks(&["./save_checkpoint.sh"]));
    assert_eq!(names(&alone), "save_checkpoint");
    assert_eq!(alone.settings().origin, None);
    let mut both = hooks(&["./save_checkpoint.sh", "/b/save_checkpoint.py --now"]);
    let named = scene(file);
    both.config = Some(named.start.usual_file.display().to_string());
    both.target_group = vec!["arn:one".to_owned(), "arn:two".to_owned()];
    let named = named.flags(both);
    assert_eq!(
        names(&named),
        "save_checkpoint save_checkpoint-2 save_checkpoint-3 leave-load-balancer leave-load-balancer-2"
    );
    assert_eq!(named.settings().origin.as_deref(), Some(named.start.usual_file.as_path()));
}

#[test]
fn a_hook_is_a_path_or_words_as_a_shell_would_split_them() {
    let own = |scene: &Scene| {
        let described = scene.settings().steps[0].action.describe();
        described.replace(&scene.folder.path().display().to_string(), "HERE")
    };
    let typed = |text| own(&scene("").flags(hooks(&[text])));
    insta::assert_snapshot!(typed("./sub/../save.sh 'two words' \"three, \\\"four\\\"\""), @r#"
    command = ["HERE/sub/../save.sh", "two words", 'three, "four"']
    working-directory = "HERE"
    "#);
    insta::assert_snapshot!(typed("python3 save.py"), @r#"
    command = ["python3", "save.py"]
    working-directory = "HERE"
    "#);
    let spaced = scene("").flags(hooks(&["./my save.sh"]));
    std::fs::write(spaced.folder.path().join("my save.sh"), "").unwrap();
    assert_eq!(spaced.settings().steps[0].name.as_str(), "my-save");
    insta::assert_snapshot!(own(&spaced), @r#"
    command = ["HERE/my save.sh"]
    working-directory = "HERE"
    "#);
    let typed = scene("").flags(hooks(&["./save.sh 'oops", "  ", "save.sh now", "./save.sh > log"]));
    std::fs::write(typed.folder.path().join("save.sh"), "").unwrap();
    insta::assert_snapshot!(typed.refused(), @r#"
    --hook: "./save.sh 'oops" has a quote or a backslash without its counterpart
    --hook: "save.sh" is not in PATH; the file that is here is ./save.sh
    --hook: it names no command
    --hook: no shell reads it, so ">" has no effect; write sh -c './save.sh > log', or quote it to pass it on as it is
    "#);
}

#[test]
fn a_name_without_a_slash_is_searched_in_path_and_nowhere_else() {
    let typed = scene("").flags(hooks(&["sh -c true"])).set("PATH", "/usr/bin:/bin");
    std::fs::write(typed.folder.path().join("sh"), "").unwrap();
    let command = typed.settings().steps[0].action.describe();
    assert!(command.starts_with("command = [\"sh\", "), "{command}");
}

#[test]
fn what_is_relative_in_a_file_is_so_to_the_file_and_elsewhere_to_the_caller() {
    let file = "state-dir = 'state'\nreport-dir = '/mnt/reports'\n\
                [[step]]\nname = 'save'\nkind = 'hook'\ncommand = ['bin/save.sh', 'out']\nworking-directory = '.'\n\
                proof = { newer = 'ckpt/*/DONE' }\n[[source]]\nkind = 'file'\npath = 'leave'\n";
    let scene = scene("").flags(Flags {
        config: Some("conf/watchdog.toml".to_owned()),
        timings_file: Some("measured.json".to_owned()),
        ..Flags::default()
    });
    let here = scene.folder.path().to_owned();
    std::fs::create_dir(here.join("conf")).unwrap();
    std::fs::write(here.join("conf/watchdog.toml"), file).unwrap();
    let settings = scene.settings();
    assert_eq!(settings.state_dir, Some(here.join("conf/state")));
    assert_eq!(settings.report_dir, Some(PathBuf::from("/mnt/reports")));
    assert_eq!(settings.timings_file, Some(here.join("measured.json")));
    assert_eq!(daemon_address(&scene.start).state_dir, settings.state_dir);
    let file_source = format!("{:?}", settings.sources);
    assert!(file_source.contains(&format!("{:?}", here.join("conf/leave"))), "{file_source}");
    let action = settings.steps[0].action.describe().replace(&here.display().to_string(), "HERE");
    insta::assert_snapshot!(action, @r#"
    command = ["HERE/conf/bin/save.sh", "out"]
    working-directory = "HERE/conf"

    [proof]
    newer = "HERE/conf/ckpt/*/DONE"
    "#);
    std::fs::write(here.join("conf/watchdog.toml"), file.replace("['bin/save.sh', 'out']", "'bin/save.sh && sync'"))
        .unwrap();
    assert_eq!(
        scene.refused(),
        "conf/watchdog.toml:6: step \"save\": command: a command is a list of words; \
         write [\"sh\", \"-c\", \"bin/save.sh && sync\"]"
    );
}

#[test]
fn the_kinds_of_notice_on_the_command_line_are_those_of_its_steps() {
    let mut flags = hooks(&["/x"]);
    flags.on = vec!["rebalance".to_owned(), "shutdown".to_owned()];
    let settings = scene("").flags(flags).settings();
    assert_eq!(settings.policy.steps[0].on, BTreeSet::from([NoticeKind::Rebalance, NoticeKind::Shutdown]));
    let flags = Flags { on: vec!["rebalance".to_owned()], ..Flags::default() };
    let said = scene("#\n").flags(flags).refused();
    assert_eq!(said, "--on: it says when --hook and --target-group are due, and neither is given");
    let said = scene("").set("SPOT_WATCHDOG_HOOK", "/x").set("SPOT_WATCHDOG_ON", "scale_in").refused();
    assert_eq!(said, "SPOT_WATCHDOG_ON: unknown kind of notice \"scale_in\"; did you mean \"scale-in\"?");
}
