//! A new app from a few fields: the objects that a person would have written.

use crate::yaml;
use serde_json::{Map, Value, json};

/// What the form holds, as typed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Form {
    pub image: String,
    /// Empty: from the image.
    pub name: String,
    pub replicas: String,
    /// Where the container listens. Empty: nowhere.
    pub port: String,
    /// Whether other pods reach it under its name.
    pub service: bool,
    /// Lines of `NAME=value`, as in a `.env` file.
    pub environment: String,
    /// Quantities as Kubernetes writes them: `250m`, `128Mi`. Empty: as much as there is.
    pub cpu: String,
    pub memory: String,
}

impl Form {
    pub fn name(&self) -> String {
        match self.name.trim() {
            "" => name_of(self.image.trim()),
            name => name.into(),
        }
    }

    /// The documents, as YAML.
    pub fn yaml(&self) -> String {
        let documents = [Some(self.deployment()), self.service()];
        documents.into_iter().flatten().map(|d| yaml::print(&d)).collect::<Vec<_>>().join("---\n")
    }

    fn labels(&self) -> Value {
        json!({"app": self.name()})
    }

    fn deployment(&self) -> Value {
        let mut container =
            Map::from_iter([("name".into(), self.name().into()), ("image".into(), self.image.trim().into())]);
        if let Some(port) = number(&self.port) {
            container.insert("ports".into(), json!([{"containerPort": port}]));
        }
        let environment = environment(&self.environment);
        if !environment.is_empty() {
            let list: Vec<Value> =
                environment.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
            container.insert("env".into(), list.into());
        }
        if let Some(resources) = self.resources() {
            container.insert("resources".into(), resources);
        }
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": self.name()},
            "spec": {
                "replicas": number(&self.replicas).unwrap_or_else(|| 1.into()),
                "selector": {"matchLabels": self.labels()},
                "template": {"metadata": {"labels": self.labels()}, "spec": {"containers": [container]}},
            },
        })
    }

    /// Asked for, and memory also the limit: a program that leaks must not take its neighbours along.
    fn resources(&self) -> Option<Value> {
        let (cpu, memory) = (self.cpu.trim(), self.memory.trim());
        let given = [("cpu", cpu), ("memory", memory)].into_iter().filter(|(_, amount)| !amount.is_empty());
        let requests: Map<String, Value> = given.map(|(name, amount)| (name.into(), amount.into())).collect();
        if requests.is_empty() {
            return None;
        }
        let mut resources = json!({"requests": requests});
        if !memory.is_empty() {
            resources["limits"] = json!({"memory": memory});
        }
        Some(resources)
    }

    fn service(&self) -> Option<Value> {
        let port = number(&self.port).filter(|_| self.service)?;
        Some(json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": self.name()},
            "spec": {"selector": self.labels(), "ports": [{"port": port, "targetPort": port}]},
        }))
    }
}

/// A number, or what was typed instead: the server says what is wrong with it.
fn number(text: &str) -> Option<Value> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.parse::<u32>().map_or_else(|_| text.into(), Value::from))
}

/// `registry.example.com:5000/team/web-shop:1.2@sha256:…` → `web-shop`.
fn name_of(image: &str) -> String {
    let image = image.split('@').next().unwrap_or_default();
    let last = image.rsplit('/').next().unwrap_or_default();
    let name = last.split(':').next().unwrap_or_default().to_ascii_lowercase().replace(['_', '.'], "-");
    name.trim_matches('-').into()
}

/// Reads `.env` lines; what has no `=` is left out.
fn environment(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let (name, value) = line.strip_prefix("export ").unwrap_or(line).split_once('=')?;
            Some((name.trim().to_string(), unquoted(value.trim()).to_string()))
        })
        .collect()
}

fn unquoted(text: &str) -> &str {
    let inner = |quote: char| text.strip_prefix(quote).and_then(|t| t.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_is_enough() {
        let form = Form { image: "longshore/hello:v1".into(), ..Form::default() };
        assert_eq!(
            form.yaml(),
            "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: hello\nspec:\n  replicas: 1\n  selector:\n    matchLabels:\n      app: hello\n  template:\n    metadata:\n      labels:\n        app: hello\n    spec:\n      containers:\n      - name: hello\n        image: longshore/hello:v1\n"
        );
    }

    #[test]
    fn everything_that_is_filled_in_is_there() {
        let form = Form {
            image: "r.example:5000/team/Web_Shop:1@sha256:00".into(),
            name: " shop ".into(),
            replicas: "3".into(),
            port: "8080".into(),
            service: true,
            environment: "# words\nexport A=1\nB='x y'\nnothing\n".into(),
            cpu: "250m".into(),
            memory: "128Mi".into(),
        };
        let documents = yaml::read(&form.yaml()).unwrap();
        let container = &documents[0].value["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["env"], json!([{"name": "A", "value": "1"}, {"name": "B", "value": "x y"}]));
        assert_eq!(
            container["resources"],
            json!({"requests": {"cpu": "250m", "memory": "128Mi"}, "limits": {"memory": "128Mi"}})
        );
        assert_eq!(documents[0].value["spec"]["replicas"], 3);
        assert_eq!(
            documents[1].value["spec"],
            json!({"selector": {"app": "shop"}, "ports": [{"port": 8080, "targetPort": 8080}]})
        );
        assert_eq!(Form { name: String::new(), ..form }.name(), "web-shop");
    }

    #[test]
    fn what_is_no_number_is_left_to_the_server() {
        let form = Form { image: "x".into(), replicas: "many".into(), ..Form::default() };
        assert!(form.yaml().contains("replicas: many"));
    }
}
