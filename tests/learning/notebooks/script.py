# %% [markdown]
# A script with cells, as editors and jupytext write them.

# %%
import requests

API = "http://10.0.0.5:5000"


def wait(job_id, wanted="Finished"):
    while True:
        job = requests.get(f"{API}/jobs/{job_id}").json()
        if job["state"] == wanted:
            return job["output"]["url"]
        assert job["state"] != "Error", job["message"]


# %%
def broken(

# %%
started = requests.post(API + "/jobs", json=dict(kind="export", format="onnx", quantize=False))
print(wait(started.json()["id"]))
requests.patch(f"{API}/jobs/{started.json()['id']}", json={"priority": -1})
