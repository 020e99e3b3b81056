"""Cluster-robust covariance of fitted parameters, from the Newton step that each cluster left out would cause."""

import numpy as np
from numpy.typing import NDArray

from analysis.laws import Array
from analysis.optimiser import Problem

LARGE = 2000  # clusters; of more, one left out does not change the Hessian


def slopes_of(problem: Problem, theta: Array) -> tuple[Array, Array]:
    """Return the log of the fitted loss [points] and its derivatives by theta [parameters, points]."""
    loss, first, _ = problem.law.derivatives(theta[None], problem.x)
    value = np.broadcast_to(loss, (1, len(problem.log_loss)))
    return np.log(value[0]), np.concatenate([derivative / value for derivative in first])


def smoothing_width(delta: float, residuals: Array) -> float:
    """Return delta, or the width of most residuals if that is larger; of many, as narrow as still holds enough."""
    size, count = np.abs(residuals), len(residuals)
    own = 1.4826 * np.median(size) if count <= LARGE else np.quantile(size, count ** (-1 / 3))
    return max(delta, float(own))


@np.errstate(all="ignore")
def leave_out_steps(
    problem: Problem, theta: Array, weights: Array, cluster: NDArray[np.int_], copies: NDArray[np.int_]
) -> tuple[Array, Array]:
    """Return the Newton step of each cluster [points] left out [clusters, parameters], and the inverse Hessian.

    `copies` [clusters] counts equal clusters, of which one is left out. Where most residuals are on the linear branch
    of the Huber loss, the Hessian is that of the loss smoothed to the residuals' own width (Powell 1991), as the few
    points within delta alone do not determine it. What is not finite is NaN.
    """
    count, free = len(copies), len(theta)
    fitted, slopes = slopes_of(problem, theta)
    residual = fitted - problem.log_loss
    width = smoothing_width(problem.delta, residual)
    smoothed = 1.0 if np.isinf(width) else problem.delta / width
    curvature = weights * (np.abs(residual) <= width) * smoothed
    pull = weights * np.clip(residual, -problem.delta, problem.delta)
    scale = np.sqrt(np.maximum(slopes**2 @ (curvature * copies[cluster]), 1e-300))
    slopes = slopes / scale[:, None]
    if not (np.isfinite(slopes).all() and np.isfinite(curvature).all() and np.isfinite(pull).all()):
        return np.full((count, free), np.nan), np.full((free, free), np.nan)
    scores = np.stack([np.bincount(cluster, pull * slope, count) for slope in slopes], axis=1)
    hessian = (slopes * (curvature * copies[cluster])) @ slopes.T
    inverse = np.linalg.pinv(hessian, rcond=1e-12)
    if count > LARGE:
        steps = scores @ inverse
    else:
        own = np.empty((count, free, free))
        for i in range(free):
            for j in range(free):
                own[:, i, j] = np.bincount(cluster, curvature * slopes[i] * slopes[j], count)
        steps = (np.linalg.pinv(hessian - own, rcond=1e-12) @ scores[:, :, None])[:, :, 0]
    return steps / scale, inverse / scale / scale[:, None]


def robust_covariance(
    problem: Problem, theta: Array, weights: Array, cluster: NDArray[np.int_], copies: NDArray[np.int_]
) -> tuple[Array, Array]:
    """Return the cluster-robust covariance of theta and the inverse Hessian: [parameters, parameters] each.

    The sandwich of Liang & Zeger 1986 in its form CR3: the sum over clusters of the squared step that leaves the
    cluster out (MacKinnon, Nielsen & Webb 2023).
    """
    steps, inverse = leave_out_steps(problem, theta, weights, cluster, copies)
    count = copies.sum()
    return (count - 1) / count * (steps * copies[:, None]).T @ steps, inverse
