//! The rules for pods, one by one, in Kubernetes's words.

use crate::resources::pod::RESOURCE;
use serde_json::{Value, json};

/// What is wrong with a good pod after `change`.
fn wrong(change: impl Fn(&mut Value)) -> Vec<String> {
    let mut pod = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {
        "containers": [{"name": "a", "image": "a:1"}],
        "volumes": [{"name": "data", "emptyDir": {}}],
    }});
    change(&mut pod);
    (RESOURCE.default)(&mut pod);
    (RESOURCE.validate)(&pod).iter().map(ToString::to_string).collect()
}

fn with(pointer: &'static str, value: Value) -> Vec<String> {
    wrong(|pod| {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        pod.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(field.into(), value.clone());
    })
}

fn in_container(field: &'static str, value: Value) -> Vec<String> {
    wrong(|pod| {
        let container = pod.pointer_mut("/spec/containers/0").unwrap();
        container.as_object_mut().unwrap().insert(field.into(), value.clone());
    })
}

fn in_spec(field: &'static str, value: Value) -> Vec<String> {
    wrong(|pod| {
        pod["spec"].as_object_mut().unwrap().insert(field.into(), value.clone());
    })
}

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

#[test]
fn a_good_pod_is_good() {
    assert_eq!(wrong(|_| {}), [""; 0]);
}

#[test]
fn containers() {
    for (field, value, expected) in [
        ("name", json!(""), vec!["spec.containers[0].name: Required value".to_string()]),
        ("name", json!("A"), vec![format!("spec.containers[0].name: Invalid value: \"A\": {LABEL}")]),
        ("image", json!(""), vec!["spec.containers[0].image: Required value".to_string()]),
        (
            "image",
            json!(" a:1"),
            vec!["spec.containers[0].image: Invalid value: \" a:1\": must not have leading or trailing whitespace".to_string()],
        ),
        (
            "imagePullPolicy",
            json!("Sometimes"),
            vec!["spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"".to_string()],
        ),
        (
            "terminationMessagePolicy",
            json!("Odd"),
            vec!["spec.containers[0].terminationMessagePolicy: Unsupported value: \"Odd\": supported values: \"File\", \"FallbackToLogsOnError\"".to_string()],
        ),
        (
            "ports",
            json!([{"containerPort": 0}, {"containerPort": 80, "name": "http", "protocol": "tcp"}, {"containerPort": 70000, "name": "http"}]),
            vec![
                "spec.containers[0].ports[0].containerPort: Required value".to_string(),
                "spec.containers[0].ports[1].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \"TCP\", \"UDP\"".to_string(),
                "spec.containers[0].ports[2].name: Duplicate value: \"http\"".to_string(),
                "spec.containers[0].ports[2].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive".to_string(),
            ],
        ),
        (
            "volumeMounts",
            json!([{"name": "data", "mountPath": "/a"}, {"name": "nope", "mountPath": "/a"}]),
            vec![
                "spec.containers[0].volumeMounts[1].name: Not found: \"nope\"".to_string(),
                "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique".to_string(),
            ],
        ),
        (
            "securityContext",
            json!({"runAsUser": -1, "allowPrivilegeEscalation": false, "privileged": true}),
            vec![
                "spec.containers[0].securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive".to_string(),
                "spec.containers[0].securityContext: Invalid value: {\"allowPrivilegeEscalation\":false,\"privileged\":true,\"runAsUser\":-1}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true".to_string(),
            ],
        ),
    ] {
        assert_eq!(in_container(field, value.clone()), expected, "{field}: {value}");
    }
    assert_eq!(in_spec("containers", json!([])), ["spec.containers: Required value"]);
    let twice = json!([{"name": "a", "image": "a:1"}, {"name": "a", "image": "a:1"}]);
    assert_eq!(in_spec("containers", twice), ["spec.containers[1].name: Duplicate value: \"a\""]);
    let host = json!([{"name": "a", "image": "a:1", "ports": [{"containerPort": 1, "hostPort": 80}]},
        {"name": "b", "image": "a:1", "ports": [{"containerPort": 2, "hostPort": 80}]}]);
    assert_eq!(in_spec("containers", host), ["spec.containers[1].ports[0].hostPort: Duplicate value: \"TCP//80\""]);
}

#[test]
fn environment() {
    for (env, expected) in [
        (json!([{"name": ""}]), "spec.containers[0].env[0].name: Required value"),
        (
            json!([{"name": "A=B"}]),
            "spec.containers[0].env[0].name: Invalid value: \"A=B\": a valid environment variable name must consist only of printable ASCII characters other than '='",
        ),
        (
            json!([{"name": "A", "valueFrom": {}}]),
            "spec.containers[0].env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ),
        (
            json!([{"name": "A", "value": "x", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}}]),
            "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
        ),
        (
            json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}}]),
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"status.phase\": supported values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"",
        ),
        (
            json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.odd"}}}]),
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.odd\": error converting fieldPath: field label not supported: spec.odd",
        ),
        (
            json!([{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "3m"}}}]),
            "spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor: Invalid value: \"limits.cpu\": only divisor's values 1m and 1 are supported with the cpu resource",
        ),
        (
            json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "a"}}}]),
            "spec.containers[0].env[0].valueFrom.secretKeyRef.key: Required value",
        ),
    ] {
        assert_eq!(in_container("env", env.clone()), [expected], "{env}");
    }
    assert_eq!(
        in_container("env", json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}}])),
        [""; 0]
    );
    assert_eq!(
        in_container("envFrom", json!([{}])),
        ["spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`"]
    );
}

#[test]
fn resources() {
    for (resources, expected) in [
        (
            json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
            vec![
                "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            ],
        ),
        (
            json!({"limits": {"memory": "-1Gi"}}),
            vec![
                "spec.containers[0].resources.limits[memory]: Invalid value: \"-1Gi\": must be greater than or equal to 0",
                "spec.containers[0].resources.requests[memory]: Invalid value: \"-1Gi\": must be greater than or equal to 0",
            ],
        ),
        (
            json!({"requests": {"gpu": "1"}}),
            vec![
                "spec.containers[0].resources.requests[gpu]: Invalid value: \"gpu\": must be a standard resource type or fully qualified",
                "spec.containers[0].resources.requests[gpu]: Invalid value: \"gpu\": must be a standard resource for containers",
            ],
        ),
        (
            json!({"requests": {"example.com/gpu": "1"}}),
            vec![
                "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
            ],
        ),
        (
            json!({"limits": {"example.com/gpu": "2"}, "requests": {"example.com/gpu": "1"}}),
            vec![
                "spec.containers[0].resources.requests: Invalid value: \"1\": must be equal to example.com/gpu limit of 2",
            ],
        ),
        (json!({"limits": {"cpu": "100m", "memory": "1Gi"}}), vec![]),
    ] {
        assert_eq!(in_container("resources", resources.clone()), expected, "{resources}");
    }
}

#[test]
fn probes_and_hooks() {
    for (field, value, expected) in [
        ("livenessProbe", json!({}), "spec.containers[0].livenessProbe: Required value: must specify a handler type"),
        (
            "livenessProbe",
            json!({"tcpSocket": {"port": 80}, "exec": {"command": ["x"]}}),
            "spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
        ),
        (
            "livenessProbe",
            json!({"tcpSocket": {"port": 80}, "successThreshold": 2}),
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            "readinessProbe",
            json!({"httpGet": {"port": 80, "scheme": "ftp"}}),
            "spec.containers[0].readinessProbe.httpGet.scheme: Unsupported value: \"ftp\": supported values: \"HTTP\", \"HTTPS\"",
        ),
        (
            "readinessProbe",
            json!({"exec": {"command": []}}),
            "spec.containers[0].readinessProbe.exec.command: Required value",
        ),
        (
            "startupProbe",
            json!({"tcpSocket": {"port": 80}, "periodSeconds": -1}),
            "spec.containers[0].startupProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            "lifecycle",
            json!({"preStop": {"sleep": {"seconds": 31}}}),
            "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)",
        ),
    ] {
        assert_eq!(in_container(field, value.clone()), [expected], "{value}");
    }
}

#[test]
fn init_containers() {
    let init = |extra: Value| {
        let mut container = json!({"name": "i", "image": "i:1"});
        container.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        in_spec("initContainers", json!([container]))
    };
    assert_eq!(init(json!({})), [""; 0]);
    assert_eq!(init(json!({"name": "a"})), ["spec.initContainers[0].name: Duplicate value: \"a\""]);
    let probe = json!({"tcpSocket": {"port": 1}});
    assert_eq!(
        init(json!({"readinessProbe": probe})),
        [
            "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always"
        ]
    );
    assert_eq!(init(json!({"readinessProbe": probe, "restartPolicy": "Always"})), [""; 0]);
}

#[test]
fn volumes() {
    for (volumes, expected) in [
        (
            json!([{"name": "a", "emptyDir": {}}, {"name": "a", "emptyDir": {}}]),
            "spec.volumes[1].name: Duplicate value: \"a\"",
        ),
        (json!([{"name": "", "emptyDir": {}}]), "spec.volumes[0].name: Required value"),
        (
            json!([{"name": "a", "emptyDir": {}, "hostPath": {"path": "/x"}}]),
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
        ),
        (json!([{"name": "a", "secret": {}}]), "spec.volumes[0].secret.secretName: Required value"),
        (
            json!([{"name": "a", "configMap": {"name": "c", "defaultMode": 1000}}]),
            "spec.volumes[0].configMap.defaultMode: Invalid value: 1000: must be a number between 0 and 0777 (octal), both inclusive",
        ),
        (
            json!([{"name": "a", "configMap": {"name": "c", "items": [{"key": "k", "path": "../x"}]}}]),
            "spec.volumes[0].configMap.items[0].path: Invalid value: \"../x\": must not contain '..'",
        ),
        (json!([{"name": "a", "hostPath": {"path": ""}}]), "spec.volumes[0].hostPath.path: Required value"),
        (
            json!([{"name": "a", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 60}}]}}]),
            "spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 60: may not specify a duration less than 10 minutes",
        ),
        (
            json!([{"name": "a", "downwardAPI": {"items": [{"path": "x"}]}}]),
            "spec.volumes[0].downwardAPI: Required value: one of fieldRef and resourceFieldRef is required",
        ),
    ] {
        let got = wrong(|pod| {
            pod["spec"]["volumes"] = volumes.clone();
            pod["spec"]["serviceAccountName"] = json!("robot");
        });
        assert_eq!(got, [expected], "{volumes}");
    }
}

#[test]
fn the_spec() {
    for (field, value, expected) in [
        (
            "restartPolicy",
            json!("Maybe"),
            "spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ),
        (
            "dnsPolicy",
            json!("Odd"),
            "spec.dnsPolicy: Unsupported value: \"Odd\": supported values: \"ClusterFirstWithHostNet\", \"ClusterFirst\", \"Default\", \"None\"",
        ),
        (
            "dnsPolicy",
            json!("None"),
            "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
        ),
        (
            "activeDeadlineSeconds",
            json!(0),
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
        ),
        (
            "tolerations",
            json!([{"operator": "Equal"}]),
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
        ),
        (
            "tolerations",
            json!([{"key": "a", "operator": "Exists", "tolerationSeconds": 1}]),
            "spec.tolerations[0].effect: Invalid value: \"\": effect must be 'NoExecute' when `tolerationSeconds` is set",
        ),
        (
            "affinity",
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}),
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term",
        ),
        (
            "affinity",
            json!({"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 0, "podAffinityTerm": {"topologyKey": "zone"}}]}}),
            "spec.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: must be in the range 1-100",
        ),
        (
            "topologySpreadConstraints",
            json!([{"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]),
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
        ),
        (
            "hostAliases",
            json!([{"ip": "999", "hostnames": ["a"]}]),
            "spec.hostAliases[0].ip: Invalid value: \"999\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ),
        ("schedulingGates", json!([{"name": "a"}, {"name": "a"}]), "spec.schedulingGates[1]: Duplicate value: \"a\""),
        (
            "preemptionPolicy",
            json!("Odd"),
            "spec.preemptionPolicy: Unsupported value: \"Odd\": supported values: \"PreemptLowerPriority\", \"Never\"",
        ),
        (
            "securityContext",
            json!({"sysctls": [{"name": "A", "value": "1"}]}),
            "spec.securityContext.sysctls[0].name: Invalid value: \"A\": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
        ),
    ] {
        assert_eq!(in_spec(field, value.clone()), [expected], "{field}: {value}");
    }
    assert_eq!(
        with("/metadata/annotations", json!({"controller.kubernetes.io/pod-deletion-cost": "+1"})),
        [
            "metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: \"+1\": must be a 32bit integer"
        ]
    );
}

fn updated(change: impl Fn(&mut Value)) -> Vec<String> {
    let mut old = json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "a", "image": "a:1"}], "nodeName": "n",
        "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]}});
    (RESOURCE.default)(&mut old);
    let mut new = old.clone();
    change(&mut new);
    (RESOURCE.validate_update)(&new, &old).iter().map(ToString::to_string).collect()
}

#[test]
fn updates_change_little() {
    assert_eq!(updated(|pod| pod["spec"]["containers"][0]["image"] = json!("a:2")), [""; 0]);
    assert_eq!(updated(|pod| pod["spec"]["activeDeadlineSeconds"] = json!(5)), [""; 0]);
    let more = json!({"key": "b", "operator": "Exists"});
    assert_eq!(updated(|pod| pod["spec"]["tolerations"].as_array_mut().unwrap().push(more.clone())), [""; 0]);
    assert_eq!(updated(|pod| pod["spec"]["tolerations"][0]["tolerationSeconds"] = json!(5)), [""; 0]);
    assert_eq!(
        updated(|pod| pod["spec"]["tolerations"] = json!([])),
        ["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"]
    );
    assert_eq!(
        updated(|pod| pod["spec"]["containers"] = json!([])),
        ["spec.containers: Forbidden: pod updates may not add or remove containers"]
    );
    let renamed = updated(|pod| pod["spec"]["containers"][0]["command"] = json!(["sh"]));
    let head = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n";
    assert!(renamed[0].starts_with(head), "{renamed:?}");
    assert!(renamed[0].contains("+      \"command\": ["), "{renamed:?}");
}

#[test]
fn what_ended_does_not_come_back() {
    let status = |state: Value| {
        json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a:1"}]},
        "status": {"containerStatuses": [{"name": "a", "state": state}]}})
    };
    let (ended, running) = (status(json!({"terminated": {"exitCode": 0}})), status(json!({"running": {}})));
    let got: Vec<_> = (RESOURCE.validate_status_update)(&running, &ended).iter().map(ToString::to_string).collect();
    assert_eq!(got, ["status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"]);
    assert_eq!((RESOURCE.validate_status_update)(&ended, &running), []);
}

#[test]
fn goes_at_once_where_nothing_runs() {
    let grace = RESOURCE.grace.unwrap();
    let running =
        json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 40}, "status": {"phase": "Running"}});
    assert_eq!(
        (grace(&running, None), grace(&running, Some(5)), grace(&running, Some(0)), grace(&running, Some(-1))),
        (40, 5, 0, 1)
    );
    let pending = json!({"spec": {"terminationGracePeriodSeconds": 40}});
    let ended = json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 40}, "status": {"phase": "Failed"}});
    assert_eq!((grace(&pending, None), grace(&ended, Some(5))), (0, 0));
}

#[test]
fn quality_of_service() {
    let class = |resources: Value| {
        let mut pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "a", "image": "a", "resources": resources}]}});
        (RESOURCE.default)(&mut pod);
        let request = crate::resources::Request { now: jiff::Timestamp::UNIX_EPOCH, user: "", namespace: "" };
        (RESOURCE.prepare_create)(&request, &mut pod);
        pod["status"]["qosClass"].as_str().unwrap().to_string()
    };
    assert_eq!(class(json!({})), "BestEffort");
    assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
    assert_eq!(class(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), "Guaranteed");
    assert_eq!(class(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}})), "Burstable");
}

#[test]
fn warns_of_what_is_likely_a_mistake() {
    let mut pod = json!({"metadata": {"name": "a.b"}, "spec": {"containers": [{"name": "a", "image": "a",
        "env": [{"name": "X", "value": "1"}, {"name": "X", "value": "2"}, {"name": "X", "value": "$(X):3"}],
        "ports": [{"name": "p", "containerPort": 80}, {"name": "p", "containerPort": 80, "hostPort": 80}],
        "resources": {"limits": {"memory": "100m"}}}]}});
    (RESOURCE.default)(&mut pod);
    assert_eq!(
        (RESOURCE.warnings)(&pod, None),
        [
            "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]",
            "spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an integer",
            "spec.containers[0].resources.requests[memory]: fractional byte value \"100m\" is invalid, must be an integer",
            "spec.containers[0].env[1]: hides previous definition of \"X\", which may be dropped when using apply",
            "spec.containers[0].ports[1]: overlapping port definition with spec.containers[0].ports[0]",
            "spec.containers[0].ports[1]: duplicate port name \"p\" with spec.containers[0].ports[0], services and probes that select ports by name will use spec.containers[0].ports[0]",
        ]
    );
    assert_eq!((RESOURCE.warnings)(&pod, Some(&pod)), [""; 0]);
}

#[test]
fn one_address_is_the_first_of_many() {
    for (status, expected) in [
        (json!({"podIP": "10.0.0.1"}), json!({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]})),
        (json!({"hostIPs": [{"ip": "10.0.0.1"}]}), json!({"hostIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.1"}]})),
        (
            json!({"podIP": "10.0.0.2", "podIPs": [{"ip": "10.0.0.1"}]}),
            json!({"podIP": "10.0.0.2", "podIPs": [{"ip": "10.0.0.2"}]}),
        ),
    ] {
        let mut pod = json!({"spec": {}, "status": status});
        (RESOURCE.default)(&mut pod);
        assert_eq!(pod["status"], expected);
    }
}

#[test]
fn keeps_its_class_when_a_status_leaves_it_out() {
    let old = json!({"spec": {}, "status": {"phase": "Pending", "qosClass": "Burstable"}});
    let mut new = json!({"spec": {}, "status": {"phase": "Running"}});
    (RESOURCE.prepare_status)(&mut new, &old);
    assert_eq!(new["status"]["qosClass"], "Burstable");
    new["status"]["qosClass"] = json!("Guaranteed");
    let got = (RESOURCE.validate_status_update)(&new, &old);
    assert_eq!(got[0].to_string(), "status.qosClass: Invalid value: \"Guaranteed\": field is immutable");
}

#[test]
fn label_keys_become_part_of_their_selectors() {
    let term = json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "web"}}, "matchLabelKeys": ["hash"], "mismatchLabelKeys": ["tenant", "none"]});
    let mut pod = json!({"metadata": {"name": "a", "labels": {"hash": "1", "tenant": "x"}}, "spec": {
        "containers": [{"name": "a", "image": "a"}],
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}});
    (RESOURCE.default)(&mut pod);
    let request = crate::resources::Request { now: jiff::Timestamp::UNIX_EPOCH, user: "", namespace: "" };
    (RESOURCE.prepare_create)(&request, &mut pod);
    let merged = &pod["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]["labelSelector"];
    let expected = json!([{"key": "hash", "operator": "In", "values": ["1"]}, {"key": "tenant", "operator": "NotIn", "values": ["x"]}]);
    assert_eq!(merged["matchExpressions"], expected);
    assert_eq!((RESOURCE.validate)(&pod), []);
}
