// Command csi-sanity runs kubernetes-csi's sanity suite where the node plugin
// is: in a guest, with the controller's socket carried in. What it found goes
// to a report in Ginkgo's JSON.
package main

import (
	"flag"
	"os"

	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
)

// verdict is what the suite runs under in the place of a *testing.T.
type verdict struct{ failed bool }

func (v *verdict) Fail() { v.failed = true }

func main() {
	config := sanity.NewTestConfig()
	flag.StringVar(&config.Address, "node", "", "node plugin's CSI `socket`")
	flag.StringVar(&config.ControllerAddress, "controller", "", "controller's CSI `socket`")
	flag.StringVar(&config.TestVolumeAccessType, "access", config.TestVolumeAccessType, "mount or block")
	flag.Int64Var(&config.TestVolumeSize, "size", 256<<20, "`bytes` of a test volume")
	flag.StringVar(&config.TargetPath, "target", "/var/lib/kubelet/csi-sanity-target", "parent `directory` of target paths, made and removed")
	flag.StringVar(&config.StagingPath, "staging", "/var/lib/kubelet/csi-sanity-staging", "staging `directory`, made and removed")
	report := flag.String("report", "", "`file` for the JSON report")
	flag.Parse()
	config.TestVolumeExpandSize = 2 * config.TestVolumeSize

	var v verdict
	gomega.RegisterFailHandler(ginkgo.Fail)
	suite := sanity.GinkgoTest(&config)
	suiteConfig, reporterConfig := ginkgo.GinkgoConfiguration()
	reporterConfig.JSONReport = *report
	reporterConfig.NoColor = true
	passed := ginkgo.RunSpecs(&v, "CSI Driver Test Suite", suiteConfig, reporterConfig)
	suite.Finalize()
	if !passed || v.failed {
		os.Exit(1)
	}
}
