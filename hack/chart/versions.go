package chart

// kubernetes are the newest patch releases of the supported minors, oldest
// first.
var kubernetes = []string{"1.34.4", "1.35.4", "1.36.3", "1.37.2"}
