package main

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestWorkflows sees that the workflows parse, that each has its permissions,
// and that an action is pinned to a commit.
func TestWorkflows(t *testing.T) {
	files, err := filepath.Glob("../../.github/workflows/*.yaml")
	must(t, err)
	if len(files) < 2 {
		t.Fatalf("found %v: want the workflows of CI and release", files)
	}
	pinned := regexp.MustCompile(`^[a-z-]+/[a-z-]+@[0-9a-f]{40}$`)
	for _, file := range files {
		data, err := os.ReadFile(file)
		must(t, err)
		var workflow struct {
			On          any            `yaml:"on"`
			Permissions map[string]any `yaml:"permissions"`
			Jobs        map[string]struct {
				RunsOn string `yaml:"runs-on"`
				Steps  []struct{ Uses, Run string }
			}
		}
		if err := yaml.Unmarshal(data, &workflow); err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if workflow.On == nil || workflow.Permissions == nil || len(workflow.Jobs) == 0 {
			t.Errorf("%s has no trigger, no permissions or no jobs", file)
		}
		for name, job := range workflow.Jobs {
			if job.RunsOn == "" || len(job.Steps) == 0 {
				t.Errorf("%s: job %s has no machine or no steps", file, name)
			}
			for i, step := range job.Steps {
				if (step.Uses == "") == (step.Run == "") {
					t.Errorf("%s: job %s, step %d: want either uses or run", file, name, i+1)
				}
				if step.Uses != "" && !pinned.MatchString(step.Uses) {
					t.Errorf("%s: %s is not pinned to a commit", file, step.Uses)
				}
			}
		}
	}
}
