//! One WebSocket that carries many HTTP streams both ways, and the stream protocols of exec. Knows no Kubernetes object.
