//! A Service: who answers for it.

use super::object::Subject;
use crate::client::live::{self, Query};
use crate::components::state::{Banner, Mark};
use crate::words::{Word, t};
use leptos::prelude::*;
use longshore_page_model::kinds::Kind;
use longshore_page_model::kube::{EndpointSlice, Service};
use longshore_page_model::service::{backends, ports, sentence};
use longshore_page_model::state::State;

#[component]
pub fn Overview(subject: Subject) -> impl IntoView {
    let scope = subject.scope;
    let this = subject.read::<Service>();
    let slices = live::watch::<EndpointSlice>(move || {
        let path = Kind::by_slug("endpointslices", &[])?.list_path(Some(&subject.namespace.get_value()));
        Some(
            Query::new(&scope.cluster.get(), path)
                .labels(format!("kubernetes.io/service-name={}", subject.name.get_value())),
        )
    });
    let all = move || slices.data.with(|s| s.items.values().cloned().collect::<Vec<_>>());
    let said = Memo::new(move |_| {
        let slices = slices.loaded().then(all);
        this.with(|s| s.as_ref().map(|s| sentence(s, slices.as_deref()))).unwrap_or_default()
    });
    view! {
        <Banner sentence=said/>
        <dl class="facts card">
            <div><dt>{t(Word::Address)}</dt><dd class="mono">{move || this.with(|s| s.as_ref().map(|s| s.spec.cluster_ip.clone()))}</dd></div>
            <div><dt>{t(Word::Ports)}</dt><dd class="mono">{move || this.with(|s| s.as_ref().map(|s| ports(s).join(", ")))}</dd></div>
        </dl>
        <section class="card"><h2>{t(Word::EndpointsTitle)}</h2><ul class="containers">{move || backends(&all()).into_iter().map(|b| view! {
            <li><Mark state=if b.ready { State::Good } else if b.terminating { State::Progressing } else { State::Degraded }/>
                <span class="mono">{b.address}" : "{b.ports}</span>
                {b.pod.map(|(ns, name)| view! { <a class="mono" href=scope.object("pods", &ns, &name)>{name.clone()}</a> })}
                <span class="quiet mono">{b.node}</span></li>
        }).collect_view()}</ul></section>
    }
}
