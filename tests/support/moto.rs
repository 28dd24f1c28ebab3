//! A `moto_server` of our own: the AWS APIs on a free loopback port, in its own process, which ends with the test.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running server.
pub(crate) struct Moto {
    /// Its base URL.
    pub(crate) url: String,
    child: Child,
    http: reqwest::Client,
}

impl Moto {
    /// Starts one. `None`, with the reason on standard error, where there is no `moto_server` here.
    pub(crate) async fn start() -> Option<Self> {
        let Some(program) = program() else {
            eprintln!("skipped: no moto_server; tests/run sets it up, or name one in SPOT_TEST_MOTO");
            return None;
        };
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        // The shell waits for its standard input to close, which happens however this process ends.
        let script = r#""$0" -H 127.0.0.1 -p "$1" >/dev/null 2>&1 & moto=$!; read _; kill $moto"#;
        let child = Command::new("sh")
            .args(["-c", script])
            .arg(program)
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let moto = Self {
            url: format!("http://127.0.0.1:{port}"),
            child,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        };
        let patience = Instant::now() + Duration::from_secs(60);
        while moto.http.get(format!("{}/moto-api/data.json", moto.url)).send().await.is_err() {
            assert!(Instant::now() < patience, "moto_server did not come up within a minute");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Some(moto)
    }

    /// Makes one call of the Query protocol, and returns its XML.
    pub(crate) async fn call(&self, api: &str, region: &str, action: &str, parameters: &[(&str, &str)]) -> String {
        let version = match api {
            "ec2" => "2016-11-15",
            "autoscaling" => "2011-01-01",
            _ => "2015-12-01",
        };
        let mut body = format!("Action={action}&Version={version}");
        for (name, value) in parameters {
            body += &format!("&{name}={}", value.replace(':', "%3A").replace('/', "%2F"));
        }
        // moto reads the API and the region out of the signature's scope, and looks at no more of it.
        let scope = format!("AKIDTEST/20260101/{region}/{api}/aws4_request");
        let answer = self
            .http
            .post(&self.url)
            .header("authorization", format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body)
            .send()
            .await
            .unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{action}: {status}: {text}");
        text
    }

    /// Starts an instance and returns its id.
    pub(crate) async fn instance(&self, region: &str) -> String {
        let parameters = [("ImageId", "ami-12c6146b"), ("MinCount", "1"), ("MaxCount", "1")];
        inside(&self.call("ec2", region, "RunInstances", &parameters).await, "instanceId")
    }

    /// Makes a target group of instances or of addresses (`ip`), and returns its ARN.
    pub(crate) async fn group(&self, region: &str, name: &str, target_type: &str) -> String {
        let vpc = inside(&self.call("ec2", region, "DescribeVpcs", &[]).await, "vpcId");
        let parameters =
            [("Name", name), ("Protocol", "HTTP"), ("Port", "80"), ("VpcId", &vpc), ("TargetType", target_type)];
        let made = self.call("elasticloadbalancing", region, "CreateTargetGroup", &parameters).await;
        inside(&made, "TargetGroupArn")
    }

    /// Makes an Auto Scaling group with one machine, a termination hook of 300 s and these target groups, in which the
    /// machine is registered then; returns the machine.
    pub(crate) async fn fleet(&self, region: &str, name: &str, target_groups: &[&str]) -> String {
        let launch = [("LaunchConfigurationName", "llm"), ("ImageId", "ami-12c6146b"), ("InstanceType", "t2.micro")];
        self.call("autoscaling", region, "CreateLaunchConfiguration", &launch).await;
        let zone = format!("{region}a");
        let members: Vec<String> = (1..=target_groups.len()).map(|at| format!("TargetGroupARNs.member.{at}")).collect();
        let mut parameters = vec![
            ("AutoScalingGroupName", name),
            ("LaunchConfigurationName", "llm"),
            ("MinSize", "0"),
            ("MaxSize", "3"),
            ("DesiredCapacity", "1"),
            ("AvailabilityZones.member.1", zone.as_str()),
            ("HealthCheckType", "ELB"),
            ("HealthCheckGracePeriod", "0"),
        ];
        parameters.extend(members.iter().map(String::as_str).zip(target_groups.iter().copied()));
        self.call("autoscaling", region, "CreateAutoScalingGroup", &parameters).await;
        let hook = [
            ("AutoScalingGroupName", name),
            ("LifecycleHookName", "drain"),
            ("LifecycleTransition", "autoscaling:EC2_INSTANCE_TERMINATING"),
            ("HeartbeatTimeout", "300"),
        ];
        self.call("autoscaling", region, "PutLifecycleHook", &hook).await;
        self.members(region, name).await.remove(0)
    }

    /// The machines of an Auto Scaling group, each with its health after a space.
    pub(crate) async fn health(&self, region: &str, name: &str) -> Vec<String> {
        let seen = self.describe_fleet(region, name).await;
        let members = seen.split("<InstanceId>").skip(1);
        members
            .map(|member| format!("{} {}", member.split_once('<').unwrap().0, inside(member, "HealthStatus")))
            .collect()
    }

    /// The machines of an Auto Scaling group.
    pub(crate) async fn members(&self, region: &str, name: &str) -> Vec<String> {
        let seen = self.describe_fleet(region, name).await;
        seen.split("<InstanceId>").skip(1).map(|member| member.split_once('<').unwrap().0.to_owned()).collect()
    }

    async fn describe_fleet(&self, region: &str, name: &str) -> String {
        let parameters = [("AutoScalingGroupNames.member.1", name)];
        self.call("autoscaling", region, "DescribeAutoScalingGroups", &parameters).await
    }

    /// Registers a target.
    pub(crate) async fn register(&self, region: &str, group: &str, id: &str, port: &str) {
        let parameters = [("TargetGroupArn", group), ("Targets.member.1.Id", id), ("Targets.member.1.Port", port)];
        self.call("elasticloadbalancing", region, "RegisterTargets", &parameters).await;
    }

    /// What a group has, as `id:port` words.
    pub(crate) async fn registered(&self, region: &str, group: &str) -> String {
        let seen =
            self.call("elasticloadbalancing", region, "DescribeTargetHealth", &[("TargetGroupArn", group)]).await;
        let targets = seen.split("<Target>").skip(1);
        targets
            .map(|target| format!("{}:{}", inside(target, "Id"), inside(target, "Port")))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn program() -> Option<PathBuf> {
    let beside_us = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin/moto_server");
    let named = std::env::var_os("SPOT_TEST_MOTO").map(PathBuf::from);
    [named, Some(beside_us)].into_iter().flatten().find(|path| path.is_file())
}

fn inside(xml: &str, element: &str) -> String {
    let (_, rest) = xml.split_once(&format!("<{element}>")).unwrap_or_else(|| panic!("no {element} in {xml}"));
    rest.split_once('<').unwrap().0.to_owned()
}
